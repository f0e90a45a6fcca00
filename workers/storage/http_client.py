"""Reads files from web servers, whole or in part, and goes on where a connection broke off.

This uses urllib3, which boto3 brings, and not the file system for HTTP of fsspec: that one neither repeats a request,
nor waits as Retry-After says, nor goes on after a cut, nor checks that all parts are of one version of the file.

A download goes on only with a strong ETag, which promises the same bytes; with a weak one, or a date alone, it begins
again. So a file that is replaced meanwhile is never put together from two versions. What is sent must be the bytes of
the file: no compression.

Not covered: the texts of errors (http_errors.py), which URLs there are (http_store.py, hf_store.py).
"""

import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from io import BytesIO
from typing import IO, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3 import exceptions as http
from urllib3.response import BaseHTTPResponse

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.version import __version__
from smoothcert.workers.storage.disk import naming_a_full_disk
from smoothcert.workers.storage.http_errors import BUSY, DENIED, MISSING, error_of, explained

_CONNECT_S, _READ_S, _ATTEMPTS, _REDIRECTS = 5, 60, 5, 10
_BACKOFF_S, _LONGEST_WAIT_S = 0.5, 60  # before the second attempt; at most, whatever Retry-After says
_CHUNK = 1 << 20
_CONNECTIONS = 16  # to one server, kept open
_NO_HEAD = (*DENIED, HTTPStatus.BAD_REQUEST, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
_CUT_SHORT = (http.ProtocolError, http.ReadTimeoutError, http.SSLError)
logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings show URLs with the keys that they hold
_COPY = "copy the file to a folder or to S3, and name that"
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True)
class Source:
    """Where a file is read.

    Attributes:
        url: of the request.
        name: the URL as the user knows it, for errors.
        headers: of each request, such as the login; not sent on to another server.
        access: what to do if the server refuses.
    """

    url: str
    name: str
    headers: Mapping[str, str]
    access: str


class Facts(NamedTuple):
    """What an answer says about the file.

    Attributes:
        size: in bytes; None if it is not said.
        fingerprint: its ETag, or else its Last-Modified; "" if neither is said.
        strong_etag: its ETag as sent, if equal ETags mean equal bytes; otherwise "".
        modified: seconds since 1970; 0 if that is not said.
        is_page: whether it is a web page.
    """

    size: int | None
    fingerprint: str
    strong_etag: str
    modified: float
    is_page: bool


class HttpClient:
    """Connections to web servers, for many threads."""

    def __init__(self) -> None:
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._copy_lock = threading.Lock()
        self._copy: tuple[str, Facts, IO[bytes]] | None = None  # the newest file of a server without ranges

    def facts(self, source: Source) -> Facts | None:
        """What the server says about a file; None if there is none."""
        with explained(source.name):
            with self._answer("HEAD", source) as head:
                facts = _facts_of(head)
                if head.status == HTTPStatus.OK and facts.size is not None:
                    return facts
                if head.status in MISSING:
                    return None
                if head.status != HTTPStatus.OK and head.status not in _NO_HEAD:
                    raise error_of(head.status, source.name, source.access, _ATTEMPTS)
            # Some URLs are signed for GET alone, and pages that a program makes have no size in the answer to HEAD.
            with self._answer("GET", source, {"Range": "bytes=0-0"}) as first:
                if first.status in MISSING:
                    return None
                return _facts_of(_checked(first, source))

    def read(self, source: Source) -> bytes:
        """The whole file."""
        target = BytesIO()
        self.download(source, target)
        return target.getvalue()

    def read_range(self, source: Source, start: int, length: int) -> bytes:
        """Some bytes of a file; fewer if it ends before. Of a server without ranges, the file is read once, whole."""
        wanted = {"Range": f"bytes={start}-{start + max(1, length) - 1}"}  # an empty range would be no range
        with explained(source.name):
            for failed in range(_ATTEMPTS):
                _wait_after(failed)
                with self._answer("GET", source, wanted) as answer:
                    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                        return b""
                    facts = _facts_of(_checked(answer, source))
                    if answer.status == HTTPStatus.OK:
                        break
                    if _start_of(answer) != start:
                        raise _other_bytes(source)
                    with suppress(*_CUT_SHORT):
                        data = answer.read()[:length]
                        if facts.size is not None and len(data) < min(length, facts.size - start):
                            raise _other_bytes(source)
                        return data
            else:
                raise _broken(source)
            copy = self._copy_of(source, facts)  # held until it is read: another thread may put a new one in its place
            return os.pread(copy.fileno(), length, start)

    def download(self, source: Source, target: IO[bytes]) -> Facts:
        """Write the whole file to an empty target.

        Raises:
            RunError: the file changed meanwhile, or the connection broke off in several attempts.
        """
        begun: Facts | None = None
        failed = longest = 0
        with explained(source.name):
            while failed < _ATTEMPTS:
                _wait_after(failed)
                at = target.tell() if begun is not None and begun.strong_etag else 0
                rest = {"Range": f"bytes={at}-", "If-Range": begun.strong_etag} if begun is not None and at else {}
                with self._answer("GET", source, rest) as answer:
                    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                        raise _changed(source)
                    facts = _facts_of(_checked(answer, source))
                    if begun is not None and not _same_file(facts, begun):
                        raise _changed(source)
                    begun = facts
                    if answer.status == HTTPStatus.OK:  # without ranges: from the start
                        at = 0
                    elif _start_of(answer) != at:
                        raise _other_bytes(source)
                    target.seek(at)
                    target.truncate()
                    with suppress(*_CUT_SHORT):
                        for chunk in answer.stream(_CHUNK):
                            target.write(chunk)
                        if facts.size in (None, target.tell()):
                            target.flush()
                            return facts
                # A slow line may break off often, but each time the file must have become longer than ever before.
                failed = 1 if target.tell() - longest >= _CHUNK else failed + 1
                longest = max(longest, target.tell())
        raise _broken(source)

    def _copy_of(self, source: Source, facts: Facts) -> IO[bytes]:
        """The whole file without a name. It vanishes with this process, and a forked one may read it, too."""
        with self._copy_lock:
            if self._copy is None or self._copy[:2] != (source.url, facts):
                with naming_a_full_disk(tempfile.gettempdir(), f"set TMPDIR to a folder with room for {source.name}"):
                    file = tempfile.TemporaryFile()  # noqa: SIM115  kept
                    if not _same_file(self.download(source, file), facts):
                        raise _changed(source)
                self._copy = (source.url, facts, file)
            return self._copy[2]

    @contextmanager
    def _answer(self, method: str, source: Source, headers: Mapping[str, str] = {}) -> Iterator[BaseHTTPResponse]:
        """The answer after redirects, its body unread."""
        sent = {"Accept-Encoding": "identity", "User-Agent": f"smoothcert/{__version__}", **source.headers, **headers}
        retries = urllib3.Retry(
            total=None,
            connect=_ATTEMPTS - 1,
            read=_ATTEMPTS - 1,
            status=_ATTEMPTS - 1,
            other=0,
            redirect=_REDIRECTS,
            status_forcelist=BUSY,
            raise_on_status=False,
            backoff_factor=_BACKOFF_S,
            backoff_jitter=_BACKOFF_S,
            retry_after_max=_LONGEST_WAIT_S,
        )
        answer = self._pool_of(source.url).request(
            method,
            source.url,
            headers=sent,
            retries=retries,
            timeout=urllib3.Timeout(connect=_CONNECT_S, read=_READ_S),
            preload_content=False,
            decode_content=False,
        )
        try:
            yield answer
        finally:
            if answer.status >= HTTPStatus.BAD_REQUEST or method == "HEAD":
                with suppress(http.HTTPError, OSError):
                    answer.drain_conn()  # so that the connection can be used again
            answer.close()

    def _pool_of(self, url: str) -> urllib3.PoolManager:
        """The connections through the proxy of the environment, if it names one for this URL."""
        parts = urlsplit(url)
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme.lower())
        if proxy not in self._pools:
            self._pools[proxy] = (
                urllib3.PoolManager(maxsize=_CONNECTIONS)
                if proxy is None
                else urllib3.ProxyManager(
                    proxy,
                    maxsize=_CONNECTIONS,
                    proxy_headers=urllib3.make_headers(proxy_basic_auth=urllib3.util.parse_url(proxy).auth),
                )
            )
        return self._pools[proxy]


def _checked(answer: BaseHTTPResponse, source: Source) -> BaseHTTPResponse:
    """Refuse an answer that does not hold the bytes of a file."""
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # of the first byte: the file is empty
        return answer
    if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise error_of(answer.status, source.name, source.access, _ATTEMPTS)
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise RequestError(f"{source.name}: the server sends it compressed ({encoding}) without being asked; {_COPY}")
    if answer.status == HTTPStatus.OK and "Content-Length" not in answer.headers and not answer.chunked:
        raise RequestError(f"{source.name}: the server does not say where the file ends; {_COPY}")
    return answer


def _facts_of(answer: BaseHTTPResponse) -> Facts:
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    size = found[2] if found else answer.headers.get("Content-Length", "")
    changed = answer.headers.get("Last-Modified", "")
    etag = answer.headers.get("ETag", "")
    modified = 0.0
    with suppress(ValueError, OverflowError):
        modified = parsedate_to_datetime(changed).timestamp()
    return Facts(
        int(size) if size.isdecimal() else None,
        etag.strip('"') or changed,
        etag if etag.startswith('"') else "",
        modified,
        answer.headers.get("Content-Type", "").lower().startswith("text/html"),
    )


def _wait_after(failed: int) -> None:
    """Give a server or a line time to recover, longer after each attempt that failed."""
    if failed:
        time.sleep(_BACKOFF_S * 2 ** (failed - 1))


def _same_file(one: Facts, other: Facts) -> bool:
    """Whether two answers are of the same version; in chunks, a size is not said."""
    return one.fingerprint == other.fingerprint and (None in (one.size, other.size) or one.size == other.size)


def _start_of(answer: BaseHTTPResponse) -> int | None:
    """Where the bytes of a part start in the file; None if it is not said."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return int(found[1]) if found and found[1] else None


def _other_bytes(source: Source) -> RequestError:
    return RequestError(f"{source.name}: the server sends other bytes than were asked for; {_COPY}")


def _changed(source: Source) -> RunError:
    return RunError(f"{source.name} changed while it was read; run the command again")


def _broken(source: Source) -> RunError:
    return RunError(
        f"{source.name}: the connection broke off in each of {_ATTEMPTS} attempts; check the network, and try again"
    )
