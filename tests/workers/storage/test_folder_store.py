"""A file in a folder is published once and whole, whoever writes at the same time."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.folder_store import FolderStore
from tests.helpers.store_calls import RANGES, RANGES_OF

NAME = "votes/00000-a.parquet"


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_published_once(tmp_path: Path) -> None:
    """The second writer of a name gets False, changes nothing and leaves nothing aside."""
    store, run = FolderStore(), str(tmp_path / "run")
    assert store.publish(run, NAME, b"first") is True
    before = store.find(f"{run}/{NAME}")
    assert store.publish(run, NAME, b"second, longer") is False
    assert store.read(f"{run}/{NAME}") == b"first"
    assert store.find(f"{run}/{NAME}") == before
    assert _names(tmp_path) == [f"run/{NAME}"]


@pytest.mark.parametrize(("start", "length", "expected"), RANGES)
def test_a_range_is_a_slice_of_the_file(start: int, length: int, expected: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(RANGES_OF)
    assert FolderStore().read_range(str(tmp_path / "a"), start, length) == expected
    with pytest.raises(RequestError, match="No such file"):
        FolderStore().read_range(str(tmp_path / "b"), start, length)


def test_one_of_many_writers_wins(tmp_path: Path) -> None:
    """Of 16 writers at once exactly one publishes, and what readers see is that writer's file, whole."""
    store, together = FolderStore(), threading.Barrier(16)

    def write(run: str, writer: int) -> bool:
        together.wait()
        return store.publish(run, NAME, bytes([writer]) * 300_000)

    for attempt in range(5):
        run = str(tmp_path / f"run-{attempt}")
        with ThreadPoolExecutor(16) as writers:
            won = list(writers.map(write, [run] * 16, range(16)))
        assert won.count(True) == 1
        assert store.read(f"{run}/{NAME}") == bytes([won.index(True)]) * 300_000
        assert _names(Path(run)) == [NAME]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """A reader that looks all the time sees no file or the whole file."""
    store, run, data = FolderStore(), str(tmp_path / "run"), os.urandom(8 << 20)
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            if store.find(f"{run}/{NAME}"):
                seen.add(len(store.read(f"{run}/{NAME}")))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        store.publish(run, NAME, data)
        time.sleep(0.05)
    finally:
        done.set()
        reader.join()
    assert seen == {len(data)}


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails, such as on a full disk, publishes nothing, leaves nothing aside and can be repeated."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    store, run = FolderStore(), str(tmp_path / "run")
    with monkeypatch.context() as full, pytest.raises(RequestError, match="No space left on device"):
        full.setattr(os, "fsync", fail)
        store.publish(run, NAME, b"data")
    assert _names(tmp_path) == []
    assert store.publish(run, NAME, b"data") is True


def test_sweep_removes_only_old_files_that_lie_aside(tmp_path: Path) -> None:
    """Only files that lie aside for more than an hour are removed, never published ones."""
    store, run = FolderStore(), str(tmp_path / "run")
    store.publish(run, NAME, b"published")
    aside = tmp_path / "run" / ".incoming"
    for name, age_s in (("dead", 3700), ("busy", 3500), ("new", 0)):
        (aside / name).write_bytes(b"half")
        os.utime(aside / name, (time.time() - age_s,) * 2)
    os.utime(tmp_path / "run" / NAME, (time.time() - 10_000,) * 2)
    store.sweep(run)
    assert _names(tmp_path / "run") == [".incoming/busy", ".incoming/new", NAME]


def test_a_writer_writes_again_what_was_swept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper whose clock is ahead may remove what a living writer has put aside."""
    store, run, swept = FolderStore(), str(tmp_path / "run"), False
    now, link = time.time, os.link

    def sweep_then_link(aside: Path, target: Path) -> None:
        nonlocal swept
        if not swept:
            store.sweep(run)
            swept = True
        link(aside, target)

    monkeypatch.setattr(time, "time", lambda: now() + 86_400)
    monkeypatch.setattr(os, "link", sweep_then_link)
    assert store.publish(run, NAME, b"data")
    assert swept
    assert (tmp_path / "run" / NAME).read_bytes() == b"data"
    assert _names(tmp_path / "run") == [NAME]


def test_sweep_of_a_missing_run_does_nothing(tmp_path: Path) -> None:
    """Nobody has written to this run yet."""
    FolderStore().sweep(str(tmp_path / "run"))
    assert _names(tmp_path) == []


@pytest.mark.parametrize("below", ["", "/deeper", "/deeper/still"])
def test_output_below_a_file_is_refused(tmp_path: Path, below: str) -> None:
    """An output below a regular file is a RequestError that names it, and the file stays as it is."""
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(RequestError, match=r"output: .*file"):
        FolderStore().publish(f"{tmp_path}/file{below}", NAME, b"data")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_folder_in_the_way_is_refused(tmp_path: Path) -> None:
    """A folder with the name of the file to publish is a RequestError, not a file that came first."""
    (tmp_path / "run" / NAME).mkdir(parents=True)
    with pytest.raises(RequestError, match="output: "):
        FolderStore().publish(str(tmp_path / "run"), NAME, b"data")
    assert _names(tmp_path) == []


def test_a_listing_has_the_files_of_a_folder_by_name(tmp_path: Path) -> None:
    """Without those of inner folders. A missing folder has none."""
    (tmp_path / "folder").mkdir()
    for name in ("b.tar", "a.tar", "folder/c.tar"):
        (tmp_path / name).write_bytes(b"12")
    store = FolderStore()
    assert [(Path(entry.url).name, entry.size) for entry in store.files(str(tmp_path))] == [("a.tar", 2), ("b.tar", 2)]
    assert store.files(str(tmp_path / "missing")) == store.files(str(tmp_path / "a.tar")) == []
    assert store.find(str(tmp_path / "folder")) is None


def test_replace_writes_a_file_whole(tmp_path: Path) -> None:
    """In place of an old one, or anew; nothing else remains."""
    store, url = FolderStore(), str(tmp_path / "a")
    for content in (b"old", b"new"):
        store.replace(url, content)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]


def test_remove_takes_one_file_away(tmp_path: Path) -> None:
    """Its neighbours stay, and a file that is missing is no error."""
    store, run = FolderStore(), str(tmp_path / "run")
    assert store.publish(run, NAME, b"one") and store.publish(run, "votes/other", b"two")
    for _ in range(2):
        store.remove(f"{run}/{NAME}")
    assert _names(Path(run)) == ["votes/other"]


def test_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    """A file that was written again has another fingerprint, even with equal size."""
    path = tmp_path / "a.tar"
    path.write_bytes(b"12")
    before = FolderStore().find(str(path))
    path.write_bytes(b"34")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    after = FolderStore().find(str(path))
    assert before is not None
    assert after is not None
    assert before.fingerprint != after.fingerprint
