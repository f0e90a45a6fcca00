"""A Certifier in a Ray actor: a process of its own, perhaps on another machine.

A shard's work is a stream: the number of images done after every batch, a report of each run at the end. An actor
answers the driver's questions while it works.

Not covered: what happens to a shard (workers/certifier.py); which actor gets it (attempts.py, fleet.py).
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import ray

from smoothcert.pipeline.certify.attempts import SHARDS_PER_ACTOR
from smoothcert.pipeline.certify.plan import Plan, certifier_of
from smoothcert.workers.runs.shard_task import Introduction, ShardReport, ShardTask, Step, TriedOut

if TYPE_CHECKING:
    from smoothcert.workers.certifier import Certifier

ACTOR_OPTIONS: dict[str, Any] = {"concurrency_groups": {"life": 1, "shards": SHARDS_PER_ACTOR}, "max_restarts": 0}


class CertifierActor:
    """Certifies shards.

    Args:
        plans: one for each run that it makes.
        threads: CPU threads to use.
    """

    def __init__(self, plans: Sequence[Plan], threads: int) -> None:
        self._plans, self._threads = plans, threads
        self._answers = {plan.run.run_id: threading.Event() for plan in plans}  # to the introductions
        self._stopping = threading.Event()
        self._loading = threading.Lock()
        self._loaded: Certifier | None = None  # loaded in the first task: Ray loses a constructor's exception

    def _certifier(self) -> "Certifier":
        with self._loading:
            if self._loaded is None:
                if not ray.get_gpu_ids():  # Ray hides no GPU from an actor that asks for none
                    os.environ["CUDA_VISIBLE_DEVICES"] = ""
                self._loaded = certifier_of(self._plans, self._threads)
            return self._loaded

    @ray.method(concurrency_group="life")  # type: ignore[untyped-decorator]
    def machine(self) -> str:
        """The id of this actor's machine. An answer also shows that the actor is alive."""
        return str(ray.get_runtime_context().get_node_id())

    @ray.method(concurrency_group="life")  # type: ignore[untyped-decorator]
    def admit(self, run_id: str, *, accepted: bool = True) -> None:
        """Continue after the introduction for a run: this actor votes like the others, or it must not vote for it."""
        if not accepted:
            self._certifier().refuse(run_id)
        self._answers[run_id].set()

    @ray.method(concurrency_group="life")  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """End each shard after its current batch. A shard whose images are all done is still published."""
        self._stopping.set()

    def try_out(self, task: ShardTask, images: int, run_id: str) -> TriedOut:
        """Vote on the first images of a shard for one run, and publish nothing."""
        return self._certifier().try_out(task, images, run_id)

    def memory_bytes(self, gpus: float) -> int:
        """The memory of an actor that asked for this many GPUs, or for none."""
        return self._certifier().memory_bytes(gpus)

    @ray.method(concurrency_group="shards")  # type: ignore[untyped-decorator]
    def certify(self, task: ShardTask, run_ids: Sequence[str]) -> Iterator[Step]:
        """Certify and publish a shard for some runs. After an introduction it waits until that is accepted."""
        with closing(self._certifier().certify(task, run_ids)) as steps:
            for step in steps:
                yield step
                if isinstance(step, Introduction):
                    self._answers[step.run_id].wait()  # or it could publish before the driver has compared it
                if self._stopping.is_set() and not isinstance(step, ShardReport):  # the other runs have their votes
                    return
