"""Which shards the first actor tries, and what happens if it is lost. Without Ray."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError

from smoothcert.manifests.errors import RequestError, RunError, ShardError
from smoothcert.manifests.job import Job, load_job
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.certify import tryout
from smoothcert.workers.runs.shard_task import ShardTask, TriedOut
from smoothcert.workers.tars.label_counts import LabelCounts
from tests.helpers import jobs

GOOD = TriedOut(Counter(ok=32), None, LabelCounts(), ("a notice",))
FEW = TriedOut(Counter(ok=2), None, LabelCounts())
BAD = TriedOut(Counter(model_error=32), "0000: a logit is not finite", LabelCounts())
DEAD = RayActorError()
MEMORY = ShardTask(-1, Shard("memory", "", 0, ""), None)  # the question for it


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("try_out", "", cause)


class MadeUpFleet:
    """Answers for each shard with a result or an error; starts a new actor whenever it is asked to."""

    def __init__(self, job: Job, sizes: Sequence[int], answers: dict[int, list[Any]]) -> None:
        tasks = tuple(ShardTask(index, Shard(f"{index}.tar", "", size, ""), None) for index, size in enumerate(sizes))
        self.plan = SimpleNamespace(job=job, tasks=tasks, run=SimpleNamespace(run_id="run"))
        self.execution = job.execution
        self._answers = answers
        self.tried: list[int] = []
        self.started: list[str] = []
        self.ended: list[str] = []

    def first_member(self) -> SimpleNamespace:
        self.started.append(f"actor {len(self.started)}")
        remote = SimpleNamespace(remote=lambda task, images, run_id: task)
        memory = SimpleNamespace(remote=lambda gpus: MEMORY)
        return SimpleNamespace(name=self.started[-1], actor=SimpleNamespace(try_out=remote, memory_bytes=memory))

    def answer_of(self, member: Any, task: ShardTask) -> TriedOut:
        self.tried.append(task.index)
        answers = self._answers.get(task.index, [GOOD])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, TriedOut)
        return answer

    def machine_of(self, member: Any) -> str:
        return "m"

    def end(self, member: Any) -> None:
        self.ended.append(member.name)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job with two attempts, on machines that live."""
    monkeypatch.setattr(tryout, "alive_among", set)
    return load_job(jobs.write_job(tmp_path, execution={"max_attempts": 2}))


def try_out(fleet: Any, *todo: int) -> tuple[str, ...]:
    fleet.plan.todo = [task for task in fleet.plan.tasks if task.index in todo]
    return tryout.try_out(tryout.Scout(fleet), fleet.plan)


def test_the_smallest_unpublished_shards_are_tried_until_they_show_enough(job: Job) -> None:
    """Eight images without a fault are enough; the notices are passed on."""
    fleet = MadeUpFleet(job, [30, 10, 20, 5], {1: [FEW]})
    assert try_out(fleet, 0, 1, 2) == ("a notice",)
    assert fleet.tried == [1, 2]


def test_a_fault_must_hold_for_published_shards_too(job: Job) -> None:
    """The last shards of a run may be odd ones."""
    fleet = MadeUpFleet(job, [10, 20, 30], {0: [BAD]})
    try_out(fleet, 0)
    assert fleet.tried == [0, 1]
    with pytest.raises(RequestError, match="96 x model_error"):
        try_out(MadeUpFleet(job, [10, 20, 30, 40], {0: [BAD], 1: [BAD], 2: [BAD]}), 0)
    few = MadeUpFleet(job, [10, 20], {0: [FEW]})
    try_out(few, 0)
    assert few.tried == [0]  # no fault: published shards are left alone


def test_a_bad_tar_is_passed_over(job: Job) -> None:
    """Its error is reported in its turn."""
    fleet = MadeUpFleet(job, [10, 20], {0: [raised(ShardError("it is empty"))]})
    try_out(fleet, 0, 1)
    assert fleet.tried == [0, 1]
    assert fleet.started == ["actor 0"]


def test_a_lost_actor_is_replaced(job: Job) -> None:
    """The next shard may fare better; after as many losses as attempts the run ends."""
    fleet = MadeUpFleet(job, [10, 20], {0: [DEAD]})
    try_out(fleet, 0, 1)
    assert (fleet.started, fleet.ended) == (["actor 0", "actor 1"], ["actor 0"])
    with pytest.raises(RunError, match="an actor died"):
        try_out(MadeUpFleet(job, [10, 20, 30], {0: [DEAD], 1: [DEAD]}), 0, 1, 2)


def test_the_end_of_a_machine_does_not_count(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the fault of the model."""
    monkeypatch.setattr(tryout, "alive_among", lambda nodes: set())
    fleet = MadeUpFleet(job, [10, 20, 30, 40], {0: [DEAD], 1: [DEAD], 2: [DEAD]})
    try_out(fleet, 0, 1, 2, 3)
    assert len(fleet.started) == 4


@pytest.mark.parametrize("cause", [RequestError("model: it does not fit"), RuntimeError("CUDA error")])
def test_an_error_of_the_model_ends_the_run(job: Job, cause: Exception) -> None:
    """At once: the actor lives and says why."""
    with pytest.raises((RequestError, RunError), match=str(cause)):
        try_out(MadeUpFleet(job, [10], {0: [raised(cause)]}), 0)


def test_an_actor_that_is_lost_while_it_says_its_memory_is_replaced(job: Job) -> None:
    """It loads torch for this, so a kill may well find it there; in the end it is given up."""
    fleet = MadeUpFleet(job, [10], {-1: [DEAD, GOOD]})
    assert tryout.Scout(fleet).memory_bytes(0) == GOOD
    assert fleet.started == ["actor 0", "actor 1"]
    assert fleet.ended == ["actor 0"]
    with pytest.raises(RunError, match="an actor died"):
        tryout.Scout(MadeUpFleet(job, [10], {-1: [DEAD]})).memory_bytes(0)


def test_a_process_that_a_model_broke_is_left(job: Job) -> None:
    """An error that is not ours, such as one of CUDA: the next model is tried in another process."""
    fleet = MadeUpFleet(job, [10], {0: [raised(RuntimeError("CUDA error"))]})
    fleet.plan.todo = fleet.plan.tasks
    scout = tryout.Scout(fleet)
    with pytest.raises(RunError, match="CUDA error"):
        tryout.try_out(scout, fleet.plan)
    assert fleet.ended == ["actor 0"]
    assert scout.memory_bytes(0)
    assert fleet.started == ["actor 0", "actor 1"]
