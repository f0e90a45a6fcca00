"""Whole files and ranges from a web server that fails in every way, once."""

import os
import time
from io import BytesIO
from typing import IO

import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.workers.storage import http_client
from smoothcert.workers.storage.http_client import Facts, HttpClient, Source
from tests.helpers.store_calls import RANGES, RANGES_OF
from tests.helpers.web_server import WebServer, web_server

BYTES = bytes(range(256)) * 40
PATH = "/data/a.tar"


@pytest.fixture(autouse=True)
def _one_file(web: WebServer) -> None:
    web.files[PATH] = BYTES


def source(web: WebServer, path: str = PATH) -> Source:
    return Source(f"{web.url}{path}", f"{web.url}{path}", {"Authorization": "Bearer token"}, "log in")


def downloaded(web: WebServer, path: str = PATH) -> bytes:
    target = BytesIO()
    assert HttpClient().download(source(web, path), target).size in (None, len(target.getvalue()))
    return target.getvalue()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("faults", [[], ["cut"], ["cut", 503, "cut"], ["cut"] * 4, [500, 502, 503, 504], [429]])
def test_a_file_arrives_whole(web: WebServer, faults: list[int | str], chunked: bool, ranges: bool) -> None:
    """After cuts, errors and requests to wait; with or without ranges and a length."""
    web.ranges, web.chunked = ranges, chunked
    web.happens(PATH, *faults)
    assert downloaded(web) == BYTES
    assert len(web.gets(PATH)) == len(faults) + 1


def test_a_cut_file_is_continued_where_it_broke_off(web: WebServer) -> None:
    """A server without ranges begins again."""
    web.happens(PATH, "cut", "cut")
    downloaded(web)
    half = len(BYTES) // 2
    assert web.gets(PATH) == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


@pytest.mark.parametrize("etag", [None, 'W/"same"'])
@pytest.mark.parametrize("date", [None, "Sun, 09 Sep 2001 01:46:40 GMT"])
def test_a_file_that_cannot_be_told_from_another_is_begun_again(
    web: WebServer, etag: str | None, date: str | None
) -> None:
    """A date and a weak ETag may stay the same while the bytes change; never are two versions put together."""
    web.headers = {"ETag": etag, "Last-Modified": date}
    web.happens(PATH, "cut")

    class Target(BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            web.files[PATH] = BYTES[::-1]
            return super().write(data)

    target = Target()
    HttpClient().download(source(web), target)
    assert target.getvalue() == BYTES[::-1]
    assert web.gets(PATH) == [None, None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_gets_no_further_ends(web: WebServer, ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy may cut each answer at the same place. More attempts are for a file that becomes longer each time."""
    waits: list[float] = []
    monkeypatch.setattr(http_client, "_CHUNK", 64)
    monkeypatch.setattr(http_client, "_BACKOFF_S", 0.5)
    monkeypatch.setattr(http_client.time, "sleep", waits.append)
    web.ranges = ranges
    web.happens(PATH, *["cut"] * 6)
    if ranges:
        assert downloaded(web) == BYTES
        assert waits == [0.5] * 6
    else:
        with pytest.raises(RunError, match="the connection broke off in each of 5 attempts"):
            downloaded(web)
        assert waits == [0.5, 1, 2, 4]


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changes_while_it_is_read_is_refused(web: WebServer, ranges: bool, header: str) -> None:
    """Never are two versions put together: the answer's fingerprint is compared with that of the first."""
    web.ranges = ranges
    web.headers = {"ETag": None, "Last-Modified": None, header: "one"}
    web.happens(PATH, "cut")

    class Target(BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            web.headers[header] = "two"
            return super().write(data)

    with pytest.raises(RunError, match=r"a\.tar changed while it was read; run the command again"):
        HttpClient().download(source(web), Target())


@pytest.mark.parametrize("size", [10, len(BYTES) - 1, len(BYTES) + 1])
def test_a_file_that_gets_another_size_is_refused(web: WebServer, size: int) -> None:
    """Though its ETag stays."""
    web.headers = {"ETag": "same"}
    web.happens(PATH, "cut")

    class Target(BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            web.files[PATH] = (BYTES * 2)[:size]
            return super().write(data)

    with pytest.raises(RunError, match="changed while it was read"):
        HttpClient().download(source(web), Target())


@pytest.mark.parametrize(
    ("faults", "kind", "line"),
    [
        (["cut"] * 5, RunError, "the connection broke off in each of 5 attempts; check the network"),
        ([503] * 5, RunError, r"the server fails \(503 Service Unavailable, 5 attempts\); try again later"),
        ([429] * 5, RunError, r"too many requests \(429 Too Many Requests, 5 attempts\); try again later"),
        ([403], RequestError, r"the server refuses it \(403 Forbidden\); log in"),
        ([401], RequestError, r"the server refuses it \(401 Unauthorized\); log in"),
        ([404], RequestError, r"does not exist \(404 Not Found\)"),
        ([418], RequestError, "the server answers 418"),
        ([f"to {PATH}"] * 20, RequestError, "the server answers only with redirects"),
        (["to ftp://example.org/a.tar"], RequestError, "correct the URL"),
    ],
)
def test_what_stays_wrong_is_one_line(web: WebServer, faults: list[int | str], kind: type, line: str) -> None:
    """It names the URL; whole files and ranges give the same."""
    for read in (lambda: HttpClient().read(source(web)), lambda: HttpClient().read_range(source(web), 1, 5000)):
        web.happens(PATH, *faults)
        with pytest.raises(kind, match=line) as found:
            read()
        assert str(found.value).startswith(f"{web.url}{PATH}: ")
        assert "\n" not in str(found.value)


def test_a_server_may_ask_to_wait(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry-After is kept, up to a bound."""
    web.happens(PATH, "429 after 1")
    began = time.monotonic()
    assert downloaded(web) == BYTES
    assert time.monotonic() - began >= 1
    monkeypatch.setattr(http_client, "_LONGEST_WAIT_S", 0.1)
    web.happens(PATH, "429 after 3600", "429 after 3600")
    began = time.monotonic()
    assert downloaded(web) == BYTES
    assert time.monotonic() - began < 10


def test_redirects_are_followed_and_logins_stay(web: WebServer) -> None:
    """A login is for the server that was named, and for no other."""
    with web_server() as other:
        other.files["/there"] = BYTES
        web.happens(PATH, f"to {web.url}/moved")
        web.happens("/moved", f"to {other.url}/there")
        assert downloaded(web) == BYTES
        assert [one.authorization for one in web.asked] == ["Bearer token"] * 2
        assert [one.authorization for one in other.asked] == [None]


@pytest.mark.parametrize(("start", "length", "expected"), RANGES)
@pytest.mark.parametrize("ranges", [True, False])
def test_a_range_is_those_bytes(web: WebServer, start: int, length: int, expected: bytes, ranges: bool) -> None:
    """As in every store."""
    web.ranges = ranges
    web.files[PATH] = RANGES_OF
    assert HttpClient().read_range(source(web), start, length) == expected


def test_a_range_is_asked_for_again_after_a_cut(web: WebServer) -> None:
    """And is never given in part."""
    web.happens(PATH, "cut", "cut")
    assert HttpClient().read_range(source(web), 100, 1000) == BYTES[100:1100]
    assert web.gets(PATH) == ["bytes=100-1099"] * 3


def test_other_bytes_than_asked_for_are_refused(web: WebServer) -> None:
    """Caches may err."""
    web.headers = {"Content-Range": "bytes 0-9/10240"}
    with pytest.raises(RequestError, match="the server sends other bytes than were asked for"):
        HttpClient().read_range(source(web), 100, 10)


def test_a_part_that_is_shorter_than_asked_for_is_refused(web: WebServer) -> None:
    """Unless the file ends there."""
    web.headers = {"Content-Range": "bytes 100-109/20000"}
    assert HttpClient().read_range(source(web), 100, 10) == BYTES[100:110]
    web.files[PATH] = BYTES[:105]
    with pytest.raises(RequestError, match="the server sends other bytes than were asked for"):
        HttpClient().read_range(source(web), 100, 10)


def test_a_copy_is_kept_while_it_is_read(web: WebServer) -> None:
    """Another thread may have put the copy of another file in its place."""
    web.ranges = False

    class Busy(HttpClient):
        def _copy_of(self, source: Source, facts: Facts) -> IO[bytes]:
            file = super()._copy_of(source, facts)
            self._copy = None
            return file

    assert Busy().read_range(source(web), 100, 10) == BYTES[100:110]


def test_a_date_that_no_clock_shows_is_left_out(web: WebServer) -> None:
    """It is not used but to tell how old a file is."""
    for date in ("Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 99 Foo 2020 99:99:99 GMT", "today"):
        web.headers = {"Last-Modified": date}
        found = HttpClient().facts(source(web))
        assert found is not None
        assert found.modified == 0


def test_without_ranges_a_file_is_read_once(web: WebServer) -> None:
    """Further ranges come from the copy, in a forked process, too; a changed file is read anew."""
    web.ranges = False
    client = HttpClient()
    for start in range(0, 1000, 100):
        assert client.read_range(source(web), start, 7) == BYTES[start : start + 7]
    bodies = len(web.gets(PATH))
    assert bodies == 10 + 1  # each range is asked for, and its answer is left
    child = os.fork()
    if child == 0:
        os._exit(int(os.pread(client._copy[2].fileno(), 7, 5) != BYTES[5:12]))  # type: ignore[index]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    web.files[PATH] = BYTES[::-1]
    assert client.read_range(source(web), 3, 7) == BYTES[::-1][3:10]


def test_facts_of_a_file(web: WebServer) -> None:
    """Size, ETag or else the date; nothing is read. None if there is no file."""
    found = HttpClient().facts(source(web))
    assert found is not None
    assert (found.size, len(found.fingerprint), found.modified) == (len(BYTES), 32, 1e9)
    web.headers = {"ETag": None}
    found = HttpClient().facts(source(web))
    assert found is not None
    assert found.fingerprint == "Sun, 09 Sep 2001 01:46:40 -0000"
    assert web.gets(PATH) == []
    assert HttpClient().facts(source(web, "/none")) is None


@pytest.mark.parametrize("size", [0, 1, 4000])
@pytest.mark.parametrize("answer", [403, 405, 501, "no length"])
@pytest.mark.parametrize("ranges", [True, False])
def test_facts_if_head_says_nothing(web: WebServer, answer: int | str, ranges: bool, size: int) -> None:
    """A signed URL may be for GET alone, and some programs do not know HEAD: the first byte tells as much."""
    web.ranges, web.files[PATH] = ranges, BYTES[:size]
    if isinstance(answer, int):
        web.happens(PATH, answer, method="HEAD")
    else:
        web.headers = {"Content-Length": None}
        web.ranges = True
    found = HttpClient().facts(source(web))
    assert found is not None
    assert found.size == size or (answer == "no length" and size == 0)


def test_a_file_that_is_sent_compressed_is_refused(web: WebServer) -> None:
    """Its bytes would not be those of the file."""
    web.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(RequestError, match=r"sends it compressed \(gzip\) without being asked; copy the file"):
        downloaded(web)


def test_a_body_without_an_end_is_refused(web: WebServer) -> None:
    """A cut would not be seen."""
    web.headers = {"Content-Length": None, "Connection": "close"}
    with pytest.raises(RequestError, match="does not say where the file ends; copy the file"):
        downloaded(web)


def test_the_proxy_of_the_environment_is_used(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless no_proxy names the server."""
    monkeypatch.setenv("http_proxy", web.url)
    there = Source("http://example.invalid/far.tar", "far.tar", {}, "")
    web.files["http://example.invalid/far.tar"] = BYTES
    assert HttpClient().read(there) == BYTES
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert downloaded(web) == BYTES


def test_no_key_of_a_url_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """urllib3 would warn of each attempt, with the whole URL."""
    monkeypatch.setattr(http_client, "_BACKOFF_S", 0)
    url = "http://127.0.0.1:9/a.tar?sig=hunter2"
    with pytest.raises(RunError) as found:
        HttpClient().read(Source(url, url, {}, ""))
    assert "hunter2" not in f"{found.value}{caplog.text}"
