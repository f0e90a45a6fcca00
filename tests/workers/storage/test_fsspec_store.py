"""Files behind fsspec: its file system in memory, and Azure's Blob Storage as Azurite has it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pytest

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.files import FileEntry
from smoothcert.manifests.job import Images, Storage, load_job
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.storage import store as storage
from smoothcert.workers.storage.fsspec_store import SERVICES, FsspecStore, store_of
from smoothcert.workers.storage.store import AnyStore, Store
from tests.helpers.azurite import azurite
from tests.helpers.finished_runs import finish_job
from tests.helpers.jobs import write_job, write_shards
from tests.helpers.store_calls import RANGES, RANGES_OF


class Place(NamedTuple):
    """A container or bucket: its URL, its store, and a file system that can write into it."""

    url: str
    store: Store
    files: Any

    def put(self, path: str, data: bytes) -> None:
        self.files.pipe_file(f"{self.url.partition('://')[2]}/{path}", data)


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite(tmp_path_factory.mktemp("azurite")) as connection:
        yield connection


@pytest.fixture(params=["memory", "azurite"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty place."""
    if request.param == "memory":
        files = fsspec.filesystem("memory", skip_instance_cache=True)
        files.mkdir("/data")
        yield Place("memory://data", FsspecStore("memory", files, "log in"), files)
        files.rm("/", recursive=True)
        return
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", request.getfixturevalue("azure"))
    storage._by_fsspec.cache_clear()
    files = fsspec.filesystem("az", skip_instance_cache=True, use_listings_cache=False)
    files.mkdir("data")
    yield Place("az://data", AnyStore(Storage()), files)
    files.rm("data", recursive=True)


def test_a_place_is_listed_and_read(place: Place) -> None:
    """As a folder is."""
    for name in ("val/1.tar", "val/0.tar", "val/more/2.tar"):
        place.put(name, name.encode())
    store, val = place.store, f"{place.url}/val"
    for folder in (val, f"{val}/"):
        listing = store.listing(folder)
        assert listing is not None
        assert [(file.url, file.size) for file in listing.files] == [(f"{val}/0.tar", 9), (f"{val}/1.tar", 9)]
        assert listing.folders == [f"{val}/more"]
    assert store.find(f"{val}/0.tar") == store.files(val)[0]
    assert store.folders(place.url) == [val]
    assert store.listing(val, most=1).files == store.files(val)[:1]  # type: ignore[union-attr]
    for missing in ("val/2.tar", "val", "val/", "none/0.tar"):
        assert store.find(f"{place.url}/{missing}") is None
    for missing in ("none", "val/0.tar"):
        assert store.listing(f"{place.url}/{missing}") is None
        assert store.files(f"{place.url}/{missing}") == store.folders(f"{place.url}/{missing}") == []
    assert store.read(f"{val}/1.tar") == b"val/1.tar"
    with store.local(f"{val}/1.tar") as file:
        assert file.read_bytes() == b"val/1.tar"
    assert not file.exists()
    assert [shard.name for shard in find_shards(Images(shards=f"{val}/{{0..1}}.tar"), store)] == ["0.tar", "1.tar"]
    for method in (store.read, lambda url: store.read_range(url, 0, 3), lambda url: store.local(url).__enter__()):
        with pytest.raises(RequestError, match=r"none/0\.tar: does not exist; correct the URL"):
            method(f"{place.url}/none/0.tar")


@pytest.mark.parametrize(("start", "length", "expected"), RANGES)
def test_a_range_is_those_bytes(place: Place, start: int, length: int, expected: bytes) -> None:
    """As in every store."""
    place.put("a", RANGES_OF)
    assert place.store.read_range(f"{place.url}/a", start, length) == expected


def test_another_content_is_another_fingerprint(place: Place) -> None:
    """Of equal size; a file that is replaced while it is copied is refused."""
    place.put("a", b"one")
    first = place.store.find(f"{place.url}/a")
    place.put("a", b"two")
    assert place.store.find(f"{place.url}/a") != first
    assert isinstance(first, FileEntry)


def test_a_file_that_changes_while_it_is_read_is_refused() -> None:
    """Of equal size, or of another."""
    files = fsspec.filesystem("memory", skip_instance_cache=True)
    files.pipe_file("/data/a", b"one")
    for changed in (b"two", b"three"):

        class Changing(type(files)):  # type: ignore[misc]
            def get_file(self, *arguments: Any, **options: Any) -> None:
                super().get_file(*arguments, **options)
                self.pipe_file("/data/a", changed)  # noqa: B023

        store = FsspecStore("memory", Changing(skip_instance_cache=True), "log in")
        with pytest.raises(RunError, match="changed while it was read"), store.local("memory://data/a"):
            pass


class _Refusing(fsspec.AbstractFileSystem):
    cachable = False

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self._answer = answer

    def info(self, path: str, **_: Any) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def _error(text: str, **fields: int) -> Exception:
    error = Exception(text)
    vars(error).update(fields)
    return error


@pytest.mark.parametrize(
    ("answer", "kind", "line"),
    [
        (PermissionError("no"), RequestError, "no; log in"),
        (OSError("Forbidden: https://storage.googleapis.com/x"), RequestError, "Forbidden: .*; log in"),
        (ValueError("Must provide either a connection_string"), RequestError, "Must provide .*; log in"),
        (_error("x", status_code=403), RequestError, r"the server refuses it \(403 Forbidden\); log in"),
        (_error("x", code=429), RunError, r"too many requests \(429"),
        (_error("x", status_code=503), RunError, r"the server fails \(503"),
        (TimeoutError("slow\nserver"), RunError, "slow server; check the URL and the network"),
        ({"name": "b/a", "size": 3, "type": "file"}, RequestError, "neither an ETag nor a time is known"),
        ({"name": "b/a", "size": None, "etag": "x", "type": "file"}, RequestError, "a changed file could not be seen"),
    ],
)
def test_what_is_wrong_is_one_line(answer: Any, kind: type[SmoothcertError], line: str) -> None:
    """Only what another attempt may change is a RunError."""
    with pytest.raises(kind, match=line) as found:
        FsspecStore("gs", _Refusing(answer), "log in").find("gs://b/a")
    assert str(found.value).startswith("gs://b/a: ")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("scheme", SERVICES)
def test_a_library_that_is_missing_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that installs it; the extras of the package hold it."""
    monkeypatch.setitem(__import__("sys").modules, SERVICES[scheme].module, None)
    extra = SERVICES[scheme].extra
    with pytest.raises(
        RequestError, match=rf"^{scheme}://: .* not installed; run: pip install 'smoothcert\[{extra}\]'"
    ):
        store_of(scheme)


def test_azure_without_an_account_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual variables."""
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RequestError, match=r"^az://: .*set AZURE_STORAGE_ACCOUNT_NAME and, unless"):
        store_of("az")


def test_a_run_from_azure_is_the_run_of_a_folder(azure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tars and weights come from a container."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure)
    storage._by_fsspec.cache_clear()
    write_shards(tmp_path, 2, 3)
    job = write_job(tmp_path)
    files = fsspec.filesystem("az", skip_instance_cache=True, use_listings_cache=False)
    files.mkdir("run")
    for file in (*(tmp_path / "tars").iterdir(), tmp_path / "weights.pt"):
        files.pipe_file(f"run/{file.name}", file.read_bytes())
    here = finish_job(load_job(job))
    options = ["images.shards=az://run/*.tar", "model.checkpoint=az://run/weights.pt", f"output={tmp_path / 'there'}"]
    there = finish_job(load_job(job, options))
    assert there.name == here.name
    record = json.loads((there / "run.json").read_text())
    assert [shard["url"] for shard in record["shards"]] == ["az://run/00.tar", "az://run/01.tar"]
