"""A web server on this machine whose files and faults a test chooses."""

import base64
import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    range: str | None
    authorization: str | None


class WebServer(ThreadingHTTPServer):
    """Answers HEAD and GET, one range included.

    Attributes:
        files: content by path.
        faults: by method and path, what happens to the next requests, one each. A number is a status; `429 after 1` has
            `Retry-After: 1`; `cut` drops the connection in the middle of the body; `to URL` redirects.
        headers: further headers of answers with a file; the value None leaves one out.
        missing: headers of the answer 404.
        announced: content by path that answers to HEAD speak of, in place of that in `files`.
        ranges, chunked, asks_login: whether ranges are known, the body is sent in chunks without a length, and a user
            `me` with the password `secret` is wanted.
        asked: every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}
        self.announced: dict[str, bytes] = {}
        self.faults: dict[tuple[str, str], list[int | str]] = {}
        self.headers: dict[str, str | None] = {}
        self.missing: dict[str, str] = {}
        self.ranges, self.chunked, self.asks_login = True, False, False
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may leave in the middle of a body."""

    def happens(self, path: str, *faults: int | str, method: str = "GET") -> None:
        """Let faults happen to the next requests for a file."""
        self.faults[method, path] = list(faults)

    def gets(self, path: str) -> list[str | None]:
        """The ranges of all GETs of a file, None for the whole."""
        return [one.range for one in self.asked if (one.method, one.path) == ("GET", path)]


@contextmanager
def web_server() -> Iterator[WebServer]:
    """A running server."""
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        path, wanted = self.path.partition("?")[0], self.headers.get("Range")
        self.server.asked.append(Asked(self.command, self.path, wanted, self.headers.get("Authorization")))
        waiting: Sequence[int | str] = self.server.faults.get((self.command, path), [])
        fault = waiting.pop(0) if waiting else None  # type: ignore[attr-defined]
        login = "Basic " + base64.b64encode(b"me:secret").decode()
        if self.server.asks_login and self.headers.get("Authorization") != login:
            self._say(401)
        elif isinstance(fault, int):
            self._say(fault, self.server.missing if fault == 404 else {})
        elif fault and fault.startswith("429 after "):
            self._say(429, {"Retry-After": fault.removeprefix("429 after ")})
        elif fault and fault.startswith("to "):
            self._say(302, {"Location": fault.removeprefix("to ")})
        elif path not in self.server.files:
            self._say(404, self.server.missing)
        else:
            of_head = self.server.announced if self.command == "HEAD" else {}
            self._send(
                of_head.get(path, self.server.files[path]),
                wanted if self.server.ranges else None,
                is_cut=fault == "cut",
            )

    do_HEAD = do_GET  # noqa: N815

    def _send(self, data: bytes, wanted: str | None, *, is_cut: bool) -> None:
        headers: dict[str, str | None] = {
            "ETag": f'"{hashlib.md5(data).hexdigest()}"',
            "Last-Modified": formatdate(1e9),
        }
        status, body = 200, data
        if wanted is not None:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(data)), len(data) - 1)
            if start >= len(data):
                self._say(416, {"Content-Range": f"bytes */{len(data)}"})
                return
            status, body = 206, data[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        headers |= {"Transfer-Encoding": "chunked"} if self.server.chunked else {"Content-Length": str(len(body))}
        self._say(status, headers | self.server.headers)
        if self.command == "HEAD":
            return
        sent = body[: len(body) // 2] if is_cut else body
        if self.server.chunked:
            self.wfile.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n" + (b"" if is_cut else b"0\r\n\r\n"))
        else:
            self.wfile.write(sent)
        self.close_connection = self.close_connection or is_cut

    def _say(self, status: int, headers: dict[str, str | None] | dict[str, str] = {}) -> None:  # noqa: B006
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        if status >= 300:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass
