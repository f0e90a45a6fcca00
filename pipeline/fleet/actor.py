"""A worker in a Ray actor: a process of its own, perhaps on another machine.

A shard's work is a stream: the number of images done after every batch, reports at the end. An actor answers the
driver's questions while it works.

Not covered: what happens to a shard (the worker); which actor gets it (attempts.py, fleet.py).
"""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Generic, TypeVar

import ray

from smoothcert.pipeline.fleet.attempts import SHARDS_PER_ACTOR
from smoothcert.workers.runs.shard_task import ShardReport, ShardTask, Step

ACTOR_OPTIONS: dict[str, Any] = {"concurrency_groups": {"life": 1, "shards": SHARDS_PER_ACTOR}, "max_restarts": 0}


PlanT = TypeVar("PlanT")
WorkerT = TypeVar("WorkerT")


class ShardActor(ABC, Generic[PlanT, WorkerT]):
    """Works on shards.

    Args:
        plans: what it works for.
        threads: CPU threads to use.
    """

    def __init__(self, plans: Sequence[PlanT], threads: int) -> None:
        self._plans, self._threads = plans, threads
        self._stopping = threading.Event()
        self._loading = threading.Lock()
        self._loaded: WorkerT | None = None  # loaded in the first task: Ray loses a constructor's exception

    @abstractmethod
    def _load(self) -> WorkerT:
        """Make the worker, in this process."""

    @abstractmethod
    def _steps(self, task: ShardTask, work_ids: Sequence[str]) -> Generator[Step, None, None]:
        """The work of a shard, for those that lack it."""

    def _worker(self) -> WorkerT:
        with self._loading:
            if self._loaded is None:
                if not ray.get_gpu_ids():  # Ray hides no GPU from an actor that asks for none
                    os.environ["CUDA_VISIBLE_DEVICES"] = ""
                self._loaded = self._load()
            return self._loaded

    @ray.method(concurrency_group="life")  # type: ignore[untyped-decorator]
    def machine(self) -> str:
        """The id of this actor's machine. An answer also shows that the actor is alive."""
        return str(ray.get_runtime_context().get_node_id())

    @ray.method(concurrency_group="life")  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """End each shard after its current step. A shard whose images are all done is still published."""
        self._stopping.set()

    @ray.method(concurrency_group="shards")  # type: ignore[untyped-decorator]
    def work(self, task: ShardTask, work_ids: Sequence[str]) -> Iterator[Step]:
        """Do the work of a shard, for those that lack it."""
        with closing(self._steps(task, work_ids)) as steps:
            for step in steps:
                yield step
                self._after(step)
                if self._stopping.is_set() and not isinstance(step, ShardReport):  # the others have their votes
                    return

    def _after(self, step: Step) -> None:
        """Wait here if the driver must hear the step before the work goes on."""
