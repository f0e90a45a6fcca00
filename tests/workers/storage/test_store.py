"""Each URL goes to the store that holds it, and names of the hub become files of this machine."""

import os
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.workers.storage import hub
from smoothcert.workers.storage import store as storage
from smoothcert.workers.storage.store import AnyStore, sha256_of


def test_other_schemes_are_refused() -> None:
    """A URL of a scheme that is not supported is a RequestError that names the scheme."""
    with pytest.raises(RequestError, match=r"ftp:// is not supported.* also https://, http://, hf://"):
        AnyStore(Storage()).find("ftp://bucket/folder")


@pytest.mark.parametrize(
    ("url", "store"),
    [
        ("https://h/a", "HttpStore"),
        ("HTTP://h/a", "HttpStore"),
        ("hf://datasets/o/n/a", "HfStore"),
        ("gs://b/a", "FsspecStore"),
        ("az://c/a", "FsspecStore"),
    ],
)
def test_files_are_only_read_from_other_places(url: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a store, one for a process, that refuses to write before it asks anybody."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "nobody")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no machine of Google answers here
    found = AnyStore(Storage())._of(url)
    assert type(found).__name__ == store
    assert AnyStore(Storage())._of(url) is found
    with pytest.raises(RequestError, match="files are only read from"):
        AnyStore(Storage()).publish(url, "run.json", b"")


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    """The example of the standard."""
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_forked_process_has_connections_of_its_own() -> None:
    """Loaders of a training are forked. Two processes that read from one socket would mix up their answers."""
    settings = Storage(endpoint_url="http://127.0.0.1:9")
    ours = storage._s3(settings)
    assert storage._s3(settings) is ours
    child = os.fork()
    if child == 0:
        os._exit(int(storage._s3(settings) is ours))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_url_goes_to_the_store_that_holds_it(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every method works for paths and for s3:// URLs."""
    place = str(tmp_path) if kind == "folder" else request.getfixturevalue("in_moto")
    store, url = AnyStore(Storage()), f"{place}/run/votes/a"
    assert store.publish(f"{place}/run", "votes/a", b"data") is True
    assert store.publish(f"{place}/run", "votes/a", b"other") is False
    assert store.read(url) == b"data"
    with store.local(url) as path:
        assert path.read_bytes() == b"data"
    assert [entry.url for entry in store.files(f"{place}/run/votes")] == [url]
    assert store.folders(f"{place}/run")[-1] == f"{place}/run/votes"
    store.move(url, f"{place}/run/quarantine/a")
    assert store.find(url) is None
    store.remove(f"{place}/run/quarantine/a")
    store.sweep(f"{place}/run")
    assert store.find(f"{place}/run/quarantine/a") is None
    for folder in store.folders(f"{place}/run"):
        store.remove_folder(folder)
    assert store.publish(f"{place}/run", "votes/b", b"kept")
    for folder in [*store.folders(f"{place}/run"), f"{place}/nowhere"]:
        store.remove_folder(folder)
    assert store.folders(f"{place}/run") == [f"{place}/run/votes"]  # it is not empty
    assert store.listing(f"{place}/nowhere") is None


def test_a_hub_name_is_a_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`find` and `local` fetch the weights; a path that only looks like a hub name is not fetched."""
    fetched = []

    def fetch(name: str) -> Path:
        fetched.append(name)
        return tmp_path / "model.safetensors"

    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(hub, "fetch", fetch)
    store = AnyStore(Storage())
    found = store.find("timm:small")
    assert found is not None
    assert found.url == str(tmp_path / "model.safetensors")
    with store.local("hf-hub:me/small@v1") as path:
        assert path.read_bytes() == b"weights"
    assert store.find(f"{tmp_path}/timm:small") is None
    assert fetched == ["timm:small", "hf-hub:me/small@v1"]
