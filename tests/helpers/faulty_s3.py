"""A proxy before a real S3 server that disturbs the requests it is told to, each once.

Requests are forwarded with their headers unchanged, so their signatures, which are for the proxy's address, hold.
"""

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
_CODES = {409: "ConditionalRequestConflict", 500: "InternalError", 503: "SlowDown"}


class Fault(NamedTuple):
    """What happens to the first request of a method whose path contains a text.

    Attributes:
        kind: a status to answer with, `lost answer` (carried out, then 500), `drop` (the connection, in the middle of
            the body) or `stall` (5 s in the middle of the body).
    """

    method: str
    path: str
    kind: int | str


class FaultyS3:
    """A running proxy.

    Attributes:
        waiting: faults that have not happened yet.
        happened: when each of the others did.
        recovered_s: seconds from each until such a request was answered well.
        answers: status and path of each PUT that reached the server.
    """

    def __init__(self, endpoint_url: str, faults: Sequence[Fault]) -> None:
        self.waiting = list(faults)
        self.happened: dict[Fault, float] = {}
        self.recovered_s: dict[Fault, float] = {}
        self.answers: list[tuple[int, str]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self, urlsplit(endpoint_url).netloc))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["FaultyS3"]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def fault_for(self, method: str, path: str) -> int | str | None:
        with self._lock:
            for fault in self.waiting:
                if fault.method == method and fault.path in path:
                    self.waiting.remove(fault)
                    self.happened[fault] = time.monotonic()
                    return fault.kind
        return None

    def answered(self, method: str, path: str) -> None:
        """A request was answered as the server did."""
        with self._lock:
            for fault, moment in self.happened.items():
                if fault.method == method and fault.path in path:
                    self.recovered_s.setdefault(fault, time.monotonic() - moment)


def _handler_of(proxy: FaultyS3, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault_for(self.command, self.path)
            if isinstance(fault, int):
                self._answer_with_error(fault)
                return
            connection = http.client.HTTPConnection(upstream)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            data = response.read()
            connection.close()
            if self.command == "PUT":
                proxy.answers.append((response.status, self.path))
            if fault == "lost answer":
                self._answer_with_error(500)
            else:
                self._pass_on(response, data, fault)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_request  # noqa: N815, http.server's names

        def _pass_on(self, response: http.client.HTTPResponse, data: bytes, fault: str | None) -> None:
            self.send_response_only(response.status, response.reason)
            for name, value in response.getheaders():
                if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                    self.send_header(name, value)
            length = response.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length)
            self.end_headers()
            half = len(data) // 2
            self.wfile.write(data[:half])
            self.wfile.flush()
            if fault == "drop":
                self.close_connection = True
                return
            if fault == "stall":
                time.sleep(5)
            self.wfile.write(data[half:])
            proxy.answered(self.command, self.path)

        def _answer_with_error(self, status: int) -> None:
            text = f"<Error><Code>{_CODES[status]}</Code><Message>injected</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler
