"""An actor loads its model once, waits until it is admitted, and stops between batches. Without Ray."""

import os
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from smoothcert.pipeline.certify import actor
from smoothcert.pipeline.certify.actor import CertifierActor
from smoothcert.workers.runs.shard_task import Introduction, ShardTask
from tests.helpers.made_up_actors import report_of, task_of

RUNS = ("run-0",)
INTRODUCTION = Introduction("run-0", "here", {}, 1, np.zeros(2, np.float32))


class MadeUpCertifier:
    """Three batches and a report for each shard."""

    made = 0
    closed = 0

    def __init__(self) -> None:
        MadeUpCertifier.made += 1
        self.introduced, self.refused = False, list[str]()

    def try_out(self, task: ShardTask, images: int, run_id: str) -> tuple[ShardTask, int, str]:
        return task, images, run_id

    def refuse(self, run_id: str) -> None:
        self.refused.append(run_id)

    def certify(self, task: ShardTask, run_ids: Sequence[str]) -> Iterator[Any]:
        try:
            if not self.introduced:
                yield INTRODUCTION
                self.introduced = True
            if self.refused:
                return
            yield from (1, 2, 3)
            yield report_of(task)
        finally:
            MadeUpCertifier.closed += 1


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Sequence[Any]:
    """What the certifier is made of; this process has no GPU of Ray."""
    made_of = (SimpleNamespace(run=SimpleNamespace(run_id="run-0")),)

    def certifier_of(plans: Sequence[Any], threads: int) -> MadeUpCertifier:
        assert (plans, threads) == (made_of, 2)
        return MadeUpCertifier()

    monkeypatch.setattr(actor, "certifier_of", certifier_of)
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(MadeUpCertifier, "made", 0)
    monkeypatch.setattr(MadeUpCertifier, "closed", 0)
    return made_of


def actor_of(plans: Any) -> CertifierActor:
    return CertifierActor(plans, 2)


def test_the_model_is_loaded_once_by_the_first_task(plans: Sequence[Any]) -> None:
    """Not by the constructor: of its errors Ray keeps the text alone."""
    one = actor_of(plans)
    assert MadeUpCertifier.made == 0
    assert one.try_out(task_of(0), 32, "run-0") == (task_of(0), 32, "run-0")
    one.admit("run-0")
    list(one.work(task_of(1), RUNS))
    assert MadeUpCertifier.made == 1


@pytest.mark.parametrize(("gpus", "visible"), [([], ""), ([3], "0")])
def test_an_actor_without_a_gpu_sees_none(
    gpus: list[int], visible: str, plans: Sequence[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray hides GPUs only from actors that ask for some."""
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: gpus)
    actor_of(plans).try_out(task_of(0), 1, "run-0")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_the_first_shard_waits_until_the_introduction_is_accepted(plans: Sequence[Any]) -> None:
    """Or it would publish while the driver still compares. Later shards need no introduction."""
    one, steps = actor_of(plans), list[Any]()
    thread = threading.Thread(target=lambda: steps.extend(one.work(task_of(0), RUNS)))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    one.admit("run-0")
    thread.join(10)
    assert steps == [INTRODUCTION, 1, 2, 3, report_of(task_of(0))]
    assert list(one.work(task_of(1), RUNS)) == [1, 2, 3, report_of(task_of(1))]


def test_a_run_that_is_not_accepted_gets_no_votes(plans: Sequence[Any]) -> None:
    """It votes otherwise than the others, or its request is wrong."""
    one = actor_of(plans)
    one.admit("run-0", accepted=False)
    assert list(one.work(task_of(0), RUNS)) == [INTRODUCTION]


def test_a_stop_ends_a_shard_after_its_batch(plans: Sequence[Any]) -> None:
    """And closes what it has open."""
    one = actor_of(plans)
    one.admit("run-0")
    steps = one.work(task_of(0), RUNS)
    assert [next(steps), next(steps)] == [INTRODUCTION, 1]
    one.stop()
    assert list(steps) == []
    assert MadeUpCertifier.closed == 1
