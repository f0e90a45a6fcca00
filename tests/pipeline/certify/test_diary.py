"""A driver's diary: a line per attempt at a shard, and one of the driver at the end."""

import json
import platform
from pathlib import Path

import pytest

from smoothcert.manifests.job import Storage
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.certify.diary import Diary
from smoothcert.pipeline.fleet.events import Beat, Failure, FoundPublished, Requeued
from smoothcert.pipeline.overview.status import FailedShard
from smoothcert.workers.runs.diaries import KnownFile, diaries_of
from smoothcert.workers.runs.file_hashes import FileHashes
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import ShardReport, ShardTask
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.records import run_record

TASK = ShardTask(0, Shard("a.tar", "a.tar", 1, ""), None)
EVENTS = [
    Beat(TASK, 2),
    ShardReport("run", TASK, {"ok": 3}, seconds=2.0, turn_s=1.0, waited_s=0.0, published=True, node="node"),
    ShardReport("run", TASK, {"ok": 4}, seconds=2.0, turn_s=1.0, waited_s=0.5, published=False, node="node"),
    ShardReport("run", TASK, {"ok": 5}, 1.0, turn_s=0, waited_s=0, published=True, node="node", adopted_from="other"),
    FoundPublished(TASK),
    Requeued(TASK, "its actor died"),
    Failure(TASK, "shard a.tar: it is not whole"),
]
FIGURES = {"seconds": 2.0, "turn_seconds": 1.0}
LINES = [
    {"outcome": "published", "statuses": {"ok": 3}, **FIGURES, "decode_wait_seconds": 0.0, "node": "node"},
    {"outcome": "found", "statuses": {"ok": 4}, **FIGURES, "decode_wait_seconds": 0.5, "node": "node"},
    {
        "outcome": "adopted",
        "statuses": {"ok": 5},
        "seconds": 1.0,
        "turn_seconds": 0,
        "decode_wait_seconds": 0,
        "node": "node",
        "adopted_from": "other",
    },
    {"outcome": "found"},
    {"outcome": "requeued", "reason": "its actor died"},
    {"outcome": "failed", "reason": "shard a.tar: it is not whole"},
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"), run_record(), AnyStore(Storage()))


def test_each_end_of_an_attempt_is_a_line(run: Run) -> None:
    """In the order of the events, with the figures that each has; what happens on the way is left out."""
    diary = Diary(run)
    for event in EVENTS:
        diary.write(event)
    diary.publish()
    (file,) = Path(run.url, "drivers").iterdir()
    *attempts, driver = map(json.loads, file.read_text().splitlines())
    assert [list(attempt)[:3] for attempt in attempts] == [["shard", "outcome", "at_s"]] * len(LINES)
    assert all(attempt.pop("at_s") >= 0 and attempt.pop("shard") == "a.tar" for attempt in attempts)
    assert attempts == LINES
    assert list(driver) == ["node", "began", "seconds", "images", "images_per_second"]
    assert (driver["node"], driver["images"]) == (platform.node(), 7)
    assert driver["images_per_second"] > 0
    assert (diary.work().computed, diary.work().adopted, diary.work().images) == (2, {"other": 1}, 7)
    assert (diary.work().turn_seconds, diary.work().waited_seconds) == (2.0, 0.5)
    assert diary.failures == [FailedShard("a.tar", "shard a.tar: it is not whole")]


def test_a_driver_without_images_has_no_rate(run: Run) -> None:
    """A rate of 0 would be a claim."""
    diary = Diary(run)
    diary.publish()
    (file,) = Path(run.url, "drivers").iterdir()
    assert json.loads(file.read_text())["images_per_second"] is None


def test_drivers_do_not_overwrite_each_other(run: Run) -> None:
    """A diary has the moment, the machine and the process in its name."""
    Diary(run).publish()
    (file,) = Path(run.url, "drivers").iterdir()
    assert file.name.split("Z-")[1].startswith(platform.node())


def test_a_finished_shard_names_its_file(run: Run) -> None:
    """With the hashes that its report gives, so that nobody has to read it whole."""
    diary, hashes = Diary(run), FileHashes("a" * 64, "b" * 64)
    diary.write(ShardReport("run", TASK, {"ok": 3}, 2.0, 1.0, 0.0, published=True, node="node", hashes=hashes))
    diary.publish()
    (stored,) = diaries_of(run)
    assert stored.files == {"votes/00000-a.parquet": KnownFile(hashes, {"ok": 3})}
