"""Actors of a fleet whose work on a shard is made up. Light: Ray imports this module in each of their processes."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.manifests.errors import RequestError, RunError, ShardError
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.certify.actor import CertifierActor
from smoothcert.pipeline.certify.plan import Plan
from smoothcert.workers.runs.shard_task import Introduction, ShardReport, ShardTask


def task_of(index: int) -> ShardTask:
    """The shard of this index, which exists nowhere."""
    return ShardTask(index, Shard(f"{index:02d}.tar", "", 1, ""), None)


def report_of(task: ShardTask, *, run_id: str = "run-0", published: bool = True) -> ShardReport:
    """Two images, whoever published them."""
    return ShardReport(run_id, task, {"ok": 2}, seconds=1.0, turn_s=1.0, waited_s=0.0, published=published, node="here")


class PlainActor(CertifierActor):
    """Reports each shard at once."""

    def work(self, task: ShardTask, work_ids: Sequence[str]) -> Iterator[Any]:
        yield 2
        yield report_of(task)


class HalfReporter(CertifierActor):
    """Reports one run of a shard, then fails at the next run, once for each shard."""

    def work(self, task: ShardTask, work_ids: Sequence[str]) -> Iterator[Any]:
        yield report_of(task)
        raise ShardError(f"{task.shard.name}: the second run holds other images")


class IntroducedActor(CertifierActor):
    """Waits after its introduction, as a real one does."""

    def work(self, task: ShardTask, work_ids: Sequence[str]) -> Iterator[Any]:
        for run_id in work_ids:
            yield Introduction(run_id, "here", {}, 1, np.zeros(2, np.float32))
            self._answers[run_id].wait()
            yield report_of(task, run_id=run_id)


class FailingActor(CertifierActor):
    """Fails in its own way at each of the first shards."""

    def work(self, task: ShardTask, work_ids: Sequence[str]) -> Iterator[Any]:
        if task.index == 0:
            raise ShardError("00.tar: it is empty")
        if task.index == 1:
            raise RunError("no answer")
        if task.index == 2:
            os._exit(1)
        yield report_of(task)


class RefusingActor(CertifierActor):
    """Finds the request wrong."""

    def work(self, task: ShardTask, work_ids: Sequence[str]) -> Iterator[Any]:
        yield 1
        raise RequestError("model: it does not fit")


class SilentActor(CertifierActor):
    """Does nothing at the first shard until it is told to stop."""

    def work(self, task: ShardTask, work_ids: Sequence[str]) -> Iterator[Any]:
        yield 1
        self._stopping.wait(60)
        if task.index == 1:  # all its images are done
            yield report_of(task)


class BrokenActor(CertifierActor):
    """Cannot start, but for the first of all."""

    def __init__(self, plans: Sequence[Plan], threads: int) -> None:
        super().__init__(plans, threads)
        try:
            Path(plans[0].run.url, "started").touch(exist_ok=False)
        except FileExistsError:
            raise ModuleNotFoundError("No module named 'torch'") from None

    def work(self, task: ShardTask, work_ids: Sequence[str]) -> Iterator[Any]:
        time.sleep(0.2)
        yield report_of(task)


class SecondReporter(CertifierActor):
    """Another driver published its first shard before it."""

    def work(self, task: ShardTask, work_ids: Sequence[str]) -> Iterator[Any]:
        yield report_of(task, published=task.index != 0)
