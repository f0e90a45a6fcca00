"""A StudyWorker in a Ray actor.

Not covered: what happens to a part of a study (workers/studies/worker.py); what all actors share (fleet/actor.py).
"""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from smoothcert.pipeline.fleet.actor import ShardActor
from smoothcert.pipeline.studies.plan import StudyPlan
from smoothcert.workers.runs.shard_task import ShardTask, Step
from smoothcert.workers.studies.study import PartTask

if TYPE_CHECKING:
    from smoothcert.workers.studies.worker import StudyWorker


class StudyActor(ShardActor[StudyPlan, "StudyWorker"]):
    """Measures the images of one study; arguments as for ShardActor."""

    def _load(self) -> "StudyWorker":
        from smoothcert.workers.studies.worker import StudyWorker

        (plan,) = self._plans
        return StudyWorker(plan.study, threads=self._threads, allow_code=plan.allow_code)

    def _steps(self, task: ShardTask, work_ids: Sequence[str]) -> Generator[Step, None, None]:  # noqa: ARG002  one study
        assert isinstance(task, PartTask)
        return self._worker().work(task)
