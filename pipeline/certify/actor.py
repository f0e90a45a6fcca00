"""A Certifier in a Ray actor. It waits until the driver has compared it with the other actors.

Not covered: what happens to a shard (workers/certifier.py); what all actors share (fleet/actor.py).
"""

import threading
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import ray

from smoothcert.pipeline.certify.plan import Plan, certifier_of
from smoothcert.pipeline.fleet.actor import ShardActor
from smoothcert.workers.runs.shard_task import Introduction, ShardTask, Step, TriedOut

if TYPE_CHECKING:
    from smoothcert.workers.certifier import Certifier


class CertifierActor(ShardActor[Plan, "Certifier"]):
    """Certifies shards; arguments as for ShardActor."""

    def __init__(self, plans: Sequence[Plan], threads: int) -> None:
        super().__init__(plans, threads)
        self._answers = {plan.run.run_id: threading.Event() for plan in plans}  # to the introductions

    def _load(self) -> "Certifier":
        return certifier_of(self._plans, self._threads)

    def _steps(self, task: ShardTask, work_ids: Sequence[str]) -> Generator[Step, None, None]:
        return self._worker().certify(task, work_ids)

    @ray.method(concurrency_group="life")  # type: ignore[untyped-decorator]
    def admit(self, run_id: str, *, accepted: bool = True) -> None:
        """Continue after the introduction for a run: this actor votes like the others, or it must not vote for it."""
        if not accepted:
            self._worker().refuse(run_id)
        self._answers[run_id].set()

    def try_out(self, task: ShardTask, images: int, run_id: str) -> TriedOut:
        """Vote on the first images of a shard for one run, and publish nothing."""
        return self._worker().try_out(task, images, run_id)

    def memory_bytes(self, gpus: float) -> int:
        """The memory of an actor that asked for this many GPUs, or for none."""
        return self._worker().memory_bytes(gpus)

    def _after(self, step: Step) -> None:
        if isinstance(step, Introduction):
            self._answers[step.run_id].wait()  # or it could publish before the driver has compared it
