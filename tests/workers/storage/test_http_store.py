"""Files of a web server: found, read, refused; and the index of a folder that cannot be listed."""

import base64
import resource
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.files import FileEntry, Listing
from smoothcert.manifests.job import Storage
from smoothcert.workers.storage.http_store import HttpStore
from smoothcert.workers.storage.store import AnyStore, Store
from tests.helpers.web_server import WebServer

DATE = "Sun, 09 Sep 2001 01:46:40 GMT"


@pytest.fixture
def store() -> Store:
    return AnyStore(Storage())


def test_a_file_is_found_and_read(
    web: WebServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, in part, and as a temporary file, also if no local file can have its name."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    web.headers = {"ETag": '"v1"', "Last-Modified": DATE}
    for name in ("a.tar", "a%20b%23.tar", "x" * 300 + ".tar", "a%00.tar", ".lock"):
        url = f"{web.url}/d/{name}"
        web.files[f"/d/{name}"] = b"0123456789"
        assert store.find(url) == FileEntry(url, 10, "v1", 1e9)
        assert store.read(url) == b"0123456789"
        assert store.read_range(url, 8, 5) == b"89"
        with store.local(url) as path:
            assert path.read_bytes() == b"0123456789"
        assert not path.exists()
    assert store.find(f"{web.url}/d/none.tar") is None
    assert store.find(f"{web.url}/d/") is None


@pytest.mark.parametrize(
    ("headers", "line"),
    [
        (
            {"ETag": None, "Last-Modified": None},
            "does not say ETag or Last-Modified, so a changed",
        ),
        (
            {"Content-Type": "text/html; charset=utf-8"},
            "sends a web page, perhaps one to log in; use",
        ),
    ],
)
def test_a_file_whose_change_nobody_would_see_is_refused(
    web: WebServer, store: Store, headers: dict[str, str | None], line: str
) -> None:
    """And so is a page instead of a file."""
    web.files["/a.tar"] = b"1234"
    web.headers = headers
    with pytest.raises(RequestError, match=line):
        store.find(f"{web.url}/a.tar")


def test_a_file_without_a_size_is_refused(web: WebServer, store: Store) -> None:
    """The size is part of the identity of a run."""
    web.files["/a.tar"], web.chunked, web.ranges = b"1234", True, False
    with pytest.raises(RequestError, match=r"does not say how large the file is.*copy it to a folder or to S3"):
        store.find(f"{web.url}/a.tar")


def test_the_page_of_a_folder_is_no_file(web: WebServer, store: Store) -> None:
    """Servers show what a folder holds."""
    web.files["/data"] = b"<html>"
    web.headers = {"Content-Type": "text/html", "Last-Modified": None, "ETag": None}
    assert store.find(f"{web.url}/data") is None


@pytest.mark.parametrize("name", ["_info.json", "index.json"])
def test_a_folder_has_its_index_alone(web: WebServer, store: Store, name: str) -> None:
    """Whether what is not there is missing or refused."""
    web.files |= {f"/data/{name}": b"{}", "/data/a.tar": b"1234"}
    web.headers = {"ETag": "v1", "Last-Modified": None}
    web.happens("/data/_info.json", *[404] * (name == "index.json"), method="HEAD")
    found = FileEntry(f"{web.url}/data/{name}", 2, "v1", 0.0)
    for folder in (f"{web.url}/data", f"{web.url}/data/"):
        assert HttpStore().listing(folder) == Listing([found], [], [])
    web.happens("/other/_info.json", 403, 403, method="HEAD")
    with pytest.raises(RequestError, match=r"/other/: a web server lists no folders, and no _info.json or index.json"):
        store.listing(f"{web.url}/other")


def test_a_login_comes_from_netrc(
    web: WebServer, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is never printed, nor taken from the URL."""
    web.files["/a.tar"], web.asks_login = b"1234", True
    with pytest.raises(RequestError, match=r"refuses it \(401 .*write a login for 127\.0\.0\.1 into ~/\.netrc"):
        store.read(f"{web.url}/a.tar")
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    file.write_text("machine 127.0.0.1 login me password secret\n")
    assert store.read(f"{web.url}/a.tar") == b"1234"
    file.write_text("machine 127.0.0.1 login me password wrong\n")
    with pytest.raises(RequestError, match="refuses it") as found:
        store.read(f"{web.url}/a.tar")
    assert "wrong" not in str(found.value)
    for content, problem in (
        ("machines\n", "not understood near line"),
        ("machine 127.0.0.1 login me password correct horse\n", "not understood near line"),
        ("machine 127.0.0.1 login me password p\xe4w\n", "it is not in UTF-8"),
    ):
        file.write_text(content, encoding="latin-1")
        with pytest.raises(RequestError, match="cannot be read") as found:
            store.read(f"{web.url}/a.tar")
        assert str(found.value).startswith(f"{file} cannot be read: {problem}")
        assert not any(part in str(found.value) for part in ("horse", "correct horse", "login me"))


def test_a_login_may_hold_any_character(
    web: WebServer, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is sent in UTF-8."""
    web.files["/a.tar"] = b"1234"
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password p€w\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    store.read(f"{web.url}/a.tar")
    sent = str(web.asked[-1].authorization).removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == "me:p€w"


@pytest.mark.parametrize("announced", [b"A" * 1000, b"A" * 1500])
def test_a_file_that_is_not_the_announced_one_is_refused(web: WebServer, store: Store, announced: bytes) -> None:
    """A cache may answer HEAD with an old version; the records would be those of a file that nobody read."""
    web.files["/a.tar"], web.announced["/a.tar"] = b"B" * 1500, announced
    with pytest.raises(RunError, match=r"/a\.tar: the server sends another file than it announces"):  # noqa: SIM117
        with store.local(f"{web.url}/a.tar"):
            pass
    web.announced["/a.tar"] = web.files["/a.tar"]
    with store.local(f"{web.url}/a.tar") as path:
        assert path.read_bytes() == b"B" * 1500


@pytest.mark.parametrize("chunked", [True, False])
def test_a_file_without_a_version_or_a_size_is_copied(web: WebServer, store: Store, chunked: bool) -> None:
    """A checkpoint is known by the hash of its bytes."""
    web.files["/w.pt"], web.chunked, web.ranges = b"1234", chunked, False
    web.headers = {"ETag": None, "Last-Modified": None}
    with store.local(f"{web.url}/w.pt") as path:
        assert path.read_bytes() == b"1234"


def test_a_user_in_the_url_is_refused(web: WebServer, store: Store) -> None:
    """Job files and records are read by many."""
    url = web.url.replace("//", "//me:hunter2@")
    with pytest.raises(RequestError, match=r"the URL holds a user; write machine, login and password") as found:
        store.find(f"{url}/a.tar")
    assert "hunter2" not in str(found.value)
    assert "hunter2" not in repr(str(found.value))
    with pytest.raises(RequestError, match="names no server"):
        store.find("http:///a.tar")
    with pytest.raises(RequestError, match=r"http://\[abc/x\.tar: is no URL \(.*\); correct it"):
        store.find("http://[abc/x.tar")


def test_errors_show_no_key_of_a_url(web: WebServer, store: Store) -> None:
    """A signed URL is as good as a password."""
    web.files["/a.tar"] = b"1234"
    web.happens("/a.tar", 503, 503, 503, 503, 503)
    with pytest.raises(RunError, match=r"/a\.tar\?\.\.\.: the server fails") as found:
        store.read(f"{web.url}/a.tar?sig=hunter2&x=y/z;v")
    assert "hunter2" not in str(found.value)
    assert "z;v" not in str(found.value)
    assert web.asked[-1].path == "/a.tar?sig=hunter2&x=y/z;v"


def test_nothing_is_written(web: WebServer, store: Store) -> None:
    """A web server has no folder for runs."""
    with pytest.raises(RequestError, match="files are only read from http://"):
        store.publish(f"{web.url}/runs", "run.json", b"{}")
    assert web.asked == []


def test_a_file_that_finds_no_room_is_one_line(web: WebServer, store: Store) -> None:
    """The error names the folder, and not the server."""
    web.files["/a.tar"] = b"1234" * 1000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"takes no file of this size.*TMPDIR"), store.local(f"{web.url}/a.tar"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
