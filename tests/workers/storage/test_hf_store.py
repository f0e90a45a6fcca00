"""Files of a repository of the hub: a web server on this machine answers as the hub does."""

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import huggingface_hub
import pytest

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.files import FileEntry, Listing
from smoothcert.manifests.job import Images, Storage, load_job
from smoothcert.manifests.shards import find_shards
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.workers.storage import store as storage
from smoothcert.workers.storage.hf_store import HfStore
from smoothcert.workers.storage.store import AnyStore, Store
from tests.helpers.finished_runs import finish_job
from tests.helpers.jobs import write_job, write_shards
from tests.helpers.web_server import WebServer

ONE, TWO = "1" * 40, "2" * 40
REPO = "hf://datasets/me/tars"
SMALL = b"small"


class Repository:
    """A repository of a dataset on a web server.

    Attributes:
        web: the server.
    """

    def __init__(self, web: WebServer) -> None:
        self.web = web
        web.missing = {"X-Error-Code": "EntryNotFound"}

    def commit(self, commit: str, files: dict[str, bytes], *, small: tuple[str, ...] = ()) -> None:
        """Let `main` be a commit with these files; all but the small ones are kept as large ones, with a SHA-256."""
        for revision in ("", "/revision/main", "/revision/v1", "/revision/refs%2Fpr%2F3", f"/revision/{commit}"):
            self.web.files[f"/api/datasets/me/tars{revision}"] = json.dumps({"id": "me/tars", "sha": commit}).encode()
        trees: dict[str, list[dict[str, Any]]] = {"": []}
        for path, data in files.items():
            self.web.files[f"/datasets/me/tars/resolve/{commit}/{quote(path)}"] = data
            folder, _, _ = path.rpartition("/")
            if folder and folder not in trees:
                trees[""].append({"type": "directory", "path": folder, "oid": "d" * 40})
            sha256 = hashlib.sha256(data).hexdigest()
            lfs = {} if path in small else {"lfs": {"oid": sha256, "size": len(data), "pointerSize": 130}}
            item = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest(), **lfs}
            trees.setdefault(folder, []).append(item)
        for folder, items in trees.items():
            path = f"/api/datasets/me/tars/tree/{commit}" + (f"/{folder}" if folder else "")
            self.web.files[path] = json.dumps(items).encode()

    def listings(self) -> list[str]:
        return [one.path for one in self.web.asked if "/tree/" in one.path]


@pytest.fixture
def repository(web: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Repository:
    """Two tars in a folder, and a file with an odd name."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", web.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    storage._hf.cache_clear()
    made = Repository(web)
    made.commit(ONE, {"val/0.tar": b"0" * 9, "val/1.tar": b"1" * 9, "a b#.txt": SMALL}, small=("a b#.txt",))
    return made


@pytest.fixture
def store(repository: Repository) -> Store:
    return AnyStore(Storage())


def entry(path: str, data: bytes) -> FileEntry:
    return FileEntry(f"{REPO}/{path}", len(data), hashlib.sha256(data).hexdigest())


def test_a_repository_is_listed(store: Store, repository: Repository) -> None:
    """Each folder once. A file's fingerprint is what the hub knows of its content."""
    small = FileEntry(f"{REPO}/a b#.txt", 5, hashlib.sha1(SMALL).hexdigest())
    for folder in (REPO, f"{REPO}/"):
        assert store.listing(folder) == Listing([small], [f"{REPO}/val"], [])
    tars = [entry("val/0.tar", b"0" * 9), entry("val/1.tar", b"1" * 9)]
    assert store.files(f"{REPO}/val") == tars
    assert store.folders(f"{REPO}/val") == []
    assert store.folders(REPO) == [f"{REPO}/val"]
    assert store.listing(f"{REPO}/val", most=1) == Listing(tars[:1], [], [])
    assert store.find(f"{REPO}/val/1.tar") == tars[1]
    assert store.find(f"{REPO}@main/val/1.tar").url == f"{REPO}@main/val/1.tar"  # type: ignore[union-attr]
    assert len(repository.listings()) == 2
    for missing in ("", "val/2.tar", "val", "none/0.tar", "val/1.tar/"):
        assert store.find(f"{REPO}/{missing}") is None
    assert store.listing(f"{REPO}/none") is None
    assert store.files(f"{REPO}/none") == store.folders(f"{REPO}/none") == []


def test_files_are_read(store: Store, repository: Repository) -> None:
    """Whole, in part, as a temporary file; of any revision, with a redirect, after a cut, and with odd names."""
    assert store.read(f"{REPO}/a b#.txt") == SMALL
    assert store.read(f"{REPO}@refs/pr/3/a b#.txt") == store.read(f"{REPO}@v1/a b#.txt") == SMALL
    assert store.read_range(f"{REPO}/val/0.tar", 7, 5) == b"00"
    path = f"/datasets/me/tars/resolve/{ONE}/val/1.tar"
    repository.web.files["/cdn/1"] = b"1" * 9
    repository.web.happens(path, f"to {repository.web.url}/cdn/1", "cut")
    repository.web.happens("/cdn/1", "cut")
    with store.local(f"{REPO}/val/1.tar") as file:
        assert file.read_bytes() == b"1" * 9
    with pytest.raises(RequestError, match=r"val/2\.tar: does not exist"), store.local(f"{REPO}/val/2.tar"):
        pass


def test_a_token_is_sent_to_the_hub_alone(
    store: Store, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is HF_TOKEN, or nothing."""
    store.read(f"{REPO}/val/0.tar")
    assert {one.authorization for one in repository.web.asked} == {None}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    store.read(f"{REPO}/val/0.tar")
    assert repository.web.asked[-1].authorization == "Bearer hf_secret"


@pytest.mark.parametrize("data", [b"x" * 9, b"0" * 8, b"0" * 10])
def test_other_bytes_than_the_hub_lists_are_refused(store: Store, repository: Repository, data: bytes) -> None:
    """By their SHA-256."""
    repository.web.files[f"/datasets/me/tars/resolve/{ONE}/val/0.tar"] = data
    with (
        pytest.raises(RunError, match=r"what was sent is not the file that the hub lists"),
        store.local(f"{REPO}/val/0.tar"),
    ):
        pass


def test_a_job_uses_one_commit(store: Store, repository: Repository) -> None:
    """The URLs of its tars hold the commit, so machines that start later read the same files."""
    for spec in ("val", "val/", "val/*.tar", "val/{0..1}.tar"):
        found = find_shards(Images(shards=f"{REPO}/{spec}"), store)
        assert [shard.url for shard in found] == [f"{REPO}@{ONE}/val/{number}.tar" for number in (0, 1)]
    repository.commit(TWO, {"val/0.tar": b"new", "val/1.tar": b"newer"})
    for later in (store, HfStore()):
        for shard in found:
            assert later.find(shard.url).size == 9  # type: ignore[union-attr]
            assert len(later.read(shard.url)) == 9
    assert HfStore().pinned(f"{REPO}/val/") == f"{REPO}@{TWO}/val/"
    assert store.pinned(f"{REPO}@{ONE}/val") == f"{REPO}@{ONE}/val"


@pytest.mark.parametrize(
    ("url", "faults", "code", "kind", "line"),
    [
        ("hf://datasets/me", [], "", RequestError, "is no file of the hub; write hf://datasets/OWNER/NAME/PATH"),
        ("hf://me", [], "", RequestError, "is no file of the hub; write hf://datasets/OWNER/NAME/PATH"),
        (f"{REPO}/val/0.tar", [404], "RepoNotFound", RequestError, "no such repository or revision that you may read"),
        (f"{REPO}@v9/val/0.tar", [], "RevisionNotFound", RequestError, "no such repository or revision that you"),
        (f"{REPO}/val/0.tar", [401], "", RequestError, "set HF_TOKEN"),
        (f"{REPO}/val/0.tar", [403], "", RequestError, r"refuses it \(403 Forbidden\); set HF_TOKEN .*accept them"),
        (f"{REPO}/val/0.tar", [429] * 9, "", RunError, r"too many requests \(429"),
        (f"{REPO}/val/0.tar", [503] * 9, "", RunError, r"the server fails \(503"),
    ],
)
def test_what_is_wrong_is_one_line(
    repository: Repository, url: str, faults: list[int | str], code: str, kind: type[SmoothcertError], line: str
) -> None:
    """What the hub says, and what to do."""
    repository.web.missing = {"X-Error-Code": code}
    repository.web.happens("/api/datasets/me/tars", *faults)
    with pytest.raises(kind, match=line) as found:
        HfStore().find(url)
    assert type(found.value) is kind
    assert str(found.value).startswith("hf://")
    assert "\n" not in str(found.value)


def test_a_hub_that_is_not_there_is_one_line(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt may succeed."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"^hf://datasets/me/tars: the hub cannot be reached: .*check the network"):
        HfStore().find(f"{REPO}/val/0.tar")


def test_a_gated_file_says_what_to_accept(store: Store, repository: Repository) -> None:
    """The hub lists it, and refuses its bytes."""
    repository.web.happens(f"/datasets/me/tars/resolve/{ONE}/val/0.tar", 403)
    with pytest.raises(RequestError, match=r"refuses it \(403 .*may read me/tars; if the hub's page"):
        store.read(f"{REPO}/val/0.tar")


def test_a_run_of_the_hub_s_tars_is_the_run_of_a_folder(repository: Repository, tmp_path: Path) -> None:
    """run.json keeps the commit. A later commit with the same tars continues the run."""
    write_shards(tmp_path, 2, 3)
    job = write_job(tmp_path)
    files = {f"val/{file.name}": file.read_bytes() for file in (tmp_path / "tars").iterdir()}
    files["w.pt"] = (tmp_path / "weights.pt").read_bytes()
    repository.commit(ONE, files)
    here = finish_job(load_job(job))
    on_hub = load_job(
        job, [f'images.shards="{REPO}/val"', f'model.checkpoint="{REPO}/w.pt"', f"output={tmp_path / 'hub'}"]
    )
    there = finish_job(on_hub)
    assert there.name == here.name
    record = json.loads((there / "run.json").read_text())
    assert [shard["url"] for shard in record["shards"]] == [f"{REPO}@{ONE}/val/0{number}.tar" for number in (0, 1)]
    repository.commit(TWO, files | {"val/README.md": b"new"})
    storage._hf.cache_clear()
    plan = make_plan(on_hub)
    assert (plan.run.url, plan.todo) == (str(there), ())
    assert plan.tasks[0].shard.url == f"{REPO}@{TWO}/val/00.tar"
