"""A shard's stages overlap: whatever takes long besides the votes, the model does not wait for it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.workers import certifier as certifier_module
from smoothcert.workers.certifier import Certifier, _ahead
from smoothcert.workers.runs.shard_task import ShardReport, ShardTask
from tests.helpers import jobs
from tests.helpers.faults import rows_of, undisturbed_rows

SHARDS, BATCHES, STAGE_S = 4, 3, 0.3


@pytest.fixture
def certifier(tmp_path: Path) -> tuple[Certifier, tuple[ShardTask, ...]]:
    """Of the small job, a shard of which is three batches; and its shards."""
    jobs.write_shards(tmp_path, SHARDS, images=2 * BATCHES)
    job = load_job(jobs.write_job(tmp_path, clean=False, execution={"images_per_batch": 2}), [])
    plan = make_plan(job)
    begin(plan)
    made = plan.certifier(threads=1)
    made.introduce()  # torch's own start
    return made, plan.tasks


def slowly(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, seconds: float) -> None:
    """Let a method take longer, as on a machine that does the work elsewhere."""
    plain: Callable[..., Any] = getattr(owner, name)

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return plain(*args, **options)

    monkeypatch.setattr(owner, name, slow)


def seconds_of(certifier: Certifier, tasks: tuple[ShardTask, ...], lanes: int) -> float:
    """To certify shards, so many at a time."""
    start = time.monotonic()
    with ThreadPoolExecutor(lanes) as threads:
        for steps in threads.map(lambda task: list(certifier.certify(task)), tasks):
            assert isinstance(steps[-1], ShardReport)
            assert steps[:-1] == [2, 4, 6]
    return time.monotonic() - start


def test_the_next_batch_is_decoded_while_one_is_computed(certifier, monkeypatch):
    """Decoding that takes as long as the votes costs one batch at the start, and the report tells of no wait."""
    made, tasks = certifier
    rest_s = seconds_of(made, tasks[:1], lanes=1)
    slowly(monkeypatch, made._model, "votes", STAGE_S)
    slowly(monkeypatch, certifier_module, "decode", STAGE_S / 2)  # of each of two images
    start = time.monotonic()
    *_, report = made.certify(tasks[1])
    assert time.monotonic() - start < rest_s + (BATCHES + BATCHES / 2 + 0.5) * STAGE_S
    assert isinstance(report, ShardReport)
    assert report.waited_s < BATCHES / 2 * STAGE_S
    assert report.turn_s >= BATCHES * STAGE_S


def test_a_shard_is_fetched_and_another_published_while_one_is_computed(certifier, monkeypatch):
    """Two shards at a time take the time of their votes, of one start and of one end."""
    made, tasks = certifier
    rest_s = SHARDS * seconds_of(made, tasks[:1], lanes=1)
    tasks = tuple(replace(task, index=task.index + SHARDS) for task in tasks)  # each to a new file
    votes_s, others_s = BATCHES * STAGE_S, STAGE_S * (BATCHES - 1) / 2
    slowly(monkeypatch, made._model, "votes", STAGE_S)
    slowly(monkeypatch, made._store, "publish", others_s)
    plain = made._store.local

    @contextmanager
    def fetched_slowly(url: str) -> Iterator[Path]:
        time.sleep(others_s)
        with plain(url) as tar:
            yield tar

    monkeypatch.setattr(made._store, "local", fetched_slowly)
    alone_s, overlapped_s = SHARDS * (votes_s + 2 * others_s), SHARDS * votes_s + 2 * others_s
    seconds = seconds_of(made, tasks, lanes=2)
    assert overlapped_s <= seconds < rest_s + (overlapped_s + alone_s) / 2


def test_two_shards_at_a_time_are_those_of_one(certifier, tmp_path):
    """The files hold the same rows."""
    made, tasks = certifier
    seconds_of(made, tasks, lanes=2)
    there = rows_of(tmp_path / "runs")
    assert there == undisturbed_rows(tmp_path / "job.yaml", tmp_path / "again")


def test_ahead_keeps_order_and_errors():
    """Items come in order, an error where it happened; and an end that comes early is clean."""

    def numbers() -> Iterator[int]:
        yield from range(1, 6)
        raise ValueError("after five")

    ahead = _ahead(numbers(), 2)
    assert [next(ahead) for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="after five"):
        next(ahead)
    ahead = _ahead(numbers(), 2)
    assert next(ahead) == 1
    ahead.close()


def test_a_tar_without_all_that_its_index_promises_fails(certifier):
    """An index file tells the number of images: one image less is not silently a smaller run."""
    made, (task, *_) = certifier
    images = list(made.certify(task))[-1].rows
    promised = replace(task, shard=replace(task.shard, images=images + 1))
    with pytest.raises(ShardError, match=f"it holds {images} images but its index file lists {images + 1}; fix the"):
        list(made.certify(promised))
