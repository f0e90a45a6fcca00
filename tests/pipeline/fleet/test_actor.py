"""What all actors share: the worker is loaded once, its steps are a stream, and it stops between batches."""

import threading
from collections.abc import Generator, Sequence

import pytest
import ray

from smoothcert.pipeline.fleet.actor import ShardActor
from smoothcert.workers.runs.shard_task import ShardTask, Step
from tests.helpers.made_up_actors import report_of, task_of


class Counting(ShardActor[str, list[int]]):
    """Two batches and a report for each shard; remembers how often it was loaded, and whom it works for."""

    loads = 0

    def _load(self) -> list[int]:
        Counting.loads += 1
        return []

    def _steps(self, task: ShardTask, work_ids: Sequence[str]) -> Generator[Step, None, None]:
        worker = self._worker()
        try:
            for number in (1, 2):
                worker.append(number)
                yield number
            yield report_of(task, run_id=work_ids[0])
        finally:
            worker.append(-1)


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    Counting.loads = 0
    return Counting(["one"], 1)


def test_the_worker_is_loaded_in_the_first_task_and_once(actor: Counting) -> None:
    assert Counting.loads == 0
    threads = [threading.Thread(target=lambda: list(actor.work(task_of(0), ["one"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counting.loads == 1


def test_the_steps_are_those_of_the_worker(actor: Counting) -> None:
    assert list(actor.work(task_of(0), ["one"])) == [1, 2, report_of(task_of(0), run_id="one")]


def test_a_stopped_actor_ends_after_its_batch_and_lets_the_worker_clean_up(actor: Counting) -> None:
    steps = actor.work(task_of(0), ["one"])
    assert next(steps) == 1
    actor.stop()
    assert list(steps) == []
    assert actor._worker() == [1, -1]
