"""What users see of a run: lines of shards, and a bar with the images there will be and the time left."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import load_job
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.certify.image_counts import count_images
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.console import bars
from smoothcert.pipeline.fleet import progress
from smoothcert.pipeline.fleet.events import Beat, CannotStart, Event, Failure, FoundPublished, Requeued
from smoothcert.pipeline.fleet.progress import _count, _Expected, progress_of
from smoothcert.workers.runs.shard_task import Introduction, ShardReport, ShardTask
from tests.helpers import jobs
from tests.helpers.clock import Clock

SHARDS = st.lists(st.tuples(st.integers(1, 50), st.booleans(), st.booleans()), min_size=1, max_size=20)


def task_of(index: int, images: int, *, listed: bool = False) -> ShardTask:
    return ShardTask(index, Shard(f"{index}.tar", f"{index}.tar", 1000 * images, "", images if listed else None), None)


def report(task: ShardTask, rows: int) -> ShardReport:
    return ShardReport("run", task, {"ok": rows}, seconds=1.0, turn_s=1.0, waited_s=0.0, published=True, node="here")


@given(shards=SHARDS)
def test_the_estimate_ends_in_the_number_of_images(shards: list[tuple[int, bool, bool]]) -> None:
    """Some shards are counted before, some are not, some fail."""
    todo = [task_of(index, images) for index, (images, _, _) in enumerate(shards)]
    counted = {index: images for index, (images, is_counted, _) in enumerate(shards) if is_counted}
    expected = _Expected(todo, counted)
    assert (expected.images() is None) == (not counted)
    assert expected.is_exact == all(is_counted for _, is_counted, _ in shards)
    for task, (images, _, fails) in zip(todo, shards, strict=True):
        if expected.images() is not None and not any(fails for _, _, fails in shards):
            assert expected.images() == sum(images for images, _, _ in shards)  # all images have the same size
        expected.finish(task, 0 if fails else images)
    assert expected.is_exact
    assert expected.images() == sum(images for images, _, fails in shards if not fails)


def test_local_tars_are_counted_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `plan` does. A damaged tar counts as 0; tars that take too long are left to the estimate."""
    jobs.write_shards(tmp_path, shards=3)
    plan = make_plan(load_job(jobs.write_job(tmp_path)))

    def count(task: ShardTask) -> int | None:
        return count_images(task, plan)

    assert _count(plan.todo, count) == dict.fromkeys(range(3), 5)
    (tmp_path / "tars" / "01.tar").write_bytes(b"no tar")
    assert _count(plan.todo, count) == {0: 5, 1: 0, 2: 5}
    monkeypatch.setattr(progress, "_COUNT_S", -1.0)
    assert _count(plan.todo, count) == {}
    assert _count([task_of(0, 7, listed=True)], count) == {0: 7}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    monkeypatch.setattr(bars, "time", made)
    return made


def test_loading_the_model_does_not_slow_the_rate(clock: Clock) -> None:
    """Two actors load for 100 s and do 16 images each every 10 s: from the first batch on the time left is right."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    todo = [task_of(0, 800), task_of(1, 800)]
    with progress_of(console, todo, lambda task: 800) as shown:
        clock.now += 100
        introduction = Introduction("run", "here", {}, 1, None)  # type: ignore[arg-type]
        shown.show(introduction)
        for batch in range(1, 51):
            clock.now += 10
            for task in todo:
                shown.show(Beat(task, 16 * batch))
            ends = shown._bar._progress.tasks[0].fields["ends"]  # type: ignore[attr-defined]
            left = 0 if ends is None else ends - clock.now
            assert left == pytest.approx(10 * (50 - batch), rel=0.05, abs=1)


def lines_of(*events: Event, terminal: bool, width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width)
    todo = list({event.task.index: event.task for event in events if hasattr(event, "task")}.values())
    with progress_of(console, todo, lambda task: task.shard.size // 1000) as shown:
        for event in events:
            shown.show(event)
    return file.getvalue()


def test_a_bar_has_number_rate_and_time_left() -> None:
    """On 80 columns with the largest numbers; a shard that goes back is not done."""
    task = task_of(0, 1281167)
    text = lines_of(Beat(task, 500000), Requeued(task, "lost"), Beat(task, 640000), terminal=True)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).rstrip().rpartition("\n")[2].rpartition("\r")[2]
    assert re.search(r"640,000/1,281,167 images, [\d,.]+/s .* left$", last)
    assert len(last) < 80


def test_without_a_terminal_a_shard_is_one_line() -> None:
    """Complete, without escapes; one image is singular, a slow rate is not 0."""
    slow = ShardReport(
        "run", task_of(1, 1), {"ok": 1}, seconds=1, turn_s=300.0, waited_s=0.0, published=True, node="here"
    )
    text = lines_of(report(task_of(0, 1234), 1234), slow, terminal=False)
    assert text.splitlines() == [
        "[1/2] 0.tar: 1,234 images, 0 errors, 1,234 images/s",
        "[2/2] 1.tar: 1 image, 0 errors, 0.00333 images/s",
    ]


def test_what_happens_to_a_shard_or_an_actor_is_one_line() -> None:
    """A shard that goes back is not counted as done, nor is an actor that cannot start."""
    task, other = task_of(0, 1), task_of(1, 1)
    events = [
        CannotStart("an actor cannot start: x"),
        Requeued(task, "y"),
        FoundPublished(task, ("r",)),
        Failure(other, "z", ("r",)),
    ]
    assert lines_of(*events, terminal=False, width=200).splitlines() == [
        "notice: an actor cannot start: x; the run goes on with the other actors and tries again",
        "again: 0.tar: y",
        "[1/2] 0.tar: published by another driver",
        "[2/2] failed: z",
    ]


def test_shards_that_cannot_be_counted_do_not_stop_the_run() -> None:
    """The error is reported when their turn comes."""

    def count(task: ShardTask) -> int | None:
        raise ShardError("is empty")

    assert _count([task_of(0, 1)], count) == {0: 0}
