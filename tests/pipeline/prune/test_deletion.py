"""Whatever is left of a run that is being deleted is no run, and the same call deletes the rest."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.prune import deletion
from smoothcert.pipeline.prune.deletion import delete, rests_of
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.runs.run import find_run
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.finished_runs import finish_job, upload
from tests.helpers.outputs import make_output


class FailingStore(AnyStore):
    """Fails at the change of a number, counted from 0, and at each later one."""

    def __init__(self, changes: int) -> None:
        super().__init__(Storage())
        self._left = changes

    def _change(self) -> None:
        if self._left <= 0:
            raise RunError("the network failed")
        self._left -= 1

    def move(self, url: str, to: str) -> None:
        self._change()
        super().move(url, to)

    def remove(self, url: str) -> None:
        self._change()
        super().remove(url)

    def remove_folder(self, url: str) -> None:
        self._change()
        super().remove_folder(url)


@pytest.fixture
def one_run(tmp_path: Path) -> Path:
    """A complete run with a diary, a quarantine and a temporary file."""
    [run] = make_output(tmp_path, 1)
    for name in ("drivers/20260101T000000Z-node-1.jsonl", f".incoming/{'0' * 32}"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).touch()
    shutil.copytree(run / "votes", run / "quarantine" / "20260101T000000Z" / "votes")
    return run


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_deleted_run_leaves_nothing(place: str, one_run: Path, request: pytest.FixtureRequest) -> None:
    """Neither files nor folders."""
    bucket = request.getfixturevalue("bucket") if place == "s3" else ""
    url = upload(one_run, bucket) if place == "s3" else str(one_run)
    store = AnyStore(Storage())
    assert delete(url, store) == []
    assert store.listing(url) is None
    assert store.listing(url.rpartition("/")[0]) is None or place == "folder"
    assert delete(url, store) == []


def test_other_files_stay(one_run: Path) -> None:
    """With the folders that hold them."""
    notes = [one_run / "notes.txt", one_run / "votes" / "mine.parquet"]
    for path in notes:
        path.write_text("mine")
    assert sorted(delete(str(one_run), AnyStore(Storage()))) == sorted(map(str, notes))
    assert {path for path in one_run.rglob("*") if path.is_file()} == set(notes)
    assert [path.name for path in one_run.iterdir() if path.is_dir()] == ["votes"]


def test_an_interrupted_deletion_leaves_no_run_and_can_be_finished(
    one_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each number of changes: the run is whole or no run, a new certification gives the run again, and the same
    call deletes the rest."""
    monkeypatch.setattr(deletion, "_THREADS", 1)  # so that changes have an order
    whole = shutil.copytree(one_run, tmp_path / "whole")
    job = load_job(tmp_path / "job.yaml", ["ablation.stride=1"])
    output, store, changes, states = str(one_run.parent), AnyStore(Storage()), 0, set[str]()
    while True:
        shutil.rmtree(one_run, ignore_errors=True)
        shutil.copytree(whole, one_run)
        try:
            delete(str(one_run), FailingStore(changes))
            break
        except RunError:
            changes += 1
        run = find_run(str(one_run), store)
        rests = [rest.url for rest in rests_of(output, Storage())]
        if run is not None:
            states.add("whole")
            assert run.complete()
            assert rests == []
        elif (one_run / "pruned.json").exists():
            states.add("rest")
            assert rests == [str(one_run)]
        else:
            states.add("empty folders")
            assert not [path for path in one_run.rglob("*") if path.is_file()]
        if changes <= 6:  # each of them leaves another set of files of votes
            left = shutil.copytree(one_run, tmp_path / "left")
            finish_job(job)
            assert verify(str(one_run)).problems == ()
            shutil.rmtree(one_run)
            shutil.move(left, one_run)
        assert delete(str(one_run), store) == []
        assert not one_run.exists()
    assert states == {"whole", "rest", "empty folders"}
    assert changes > 8


def test_a_run_that_began_anew_in_between_is_a_run(one_run: Path, tmp_path: Path) -> None:
    """The rest of the earlier deletion does not make it one that is being deleted."""
    with pytest.raises(RunError, match="the network failed"):
        delete(str(one_run), FailingStore(3))
    finish_job(load_job(tmp_path / "job.yaml", ["ablation.stride=1"]))
    assert rests_of(str(one_run.parent), Storage()) == []
    assert delete(str(one_run), AnyStore(Storage())) == []
    assert not one_run.exists()


def test_what_can_only_be_read_is_not_deleted(web: Any) -> None:
    """Nothing happens before the refusal."""
    with pytest.raises(RequestError, match="files are only read from"):
        delete(f"{web.url}/runs/0123456789abcdef", AnyStore(Storage()))
