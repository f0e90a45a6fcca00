"""The fleet starts, feeds, hears and ends real actors of a real Ray; what they do to a shard is made up."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import ray

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Job, Storage, load_job
from smoothcert.pipeline.certify.actor import CertifierActor
from smoothcert.pipeline.certify.plan import Plan
from smoothcert.pipeline.cluster import resources
from smoothcert.pipeline.cluster.resources import Share
from smoothcert.pipeline.fleet import attempts, fleet
from smoothcert.pipeline.fleet.events import Beat, CannotStart, Event, Failure, FoundPublished, Requeued
from smoothcert.pipeline.fleet.fleet import Fleet
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import Introduction, ShardReport
from smoothcert.workers.storage.store import AnyStore
from tests.helpers import jobs
from tests.helpers.made_up_actors import (
    BrokenActor,
    FailingActor,
    HalfReporter,
    IntroducedActor,
    PlainActor,
    RefusingActor,
    SecondReporter,
    SilentActor,
    task_of,
)
from tests.helpers.records import run_record

pytestmark = pytest.mark.usefixtures("ray_here")
RUNS = ("run-0", "run-1")
ONE_ACTOR = Share(cpus=0.5, gpus=0, actors=1)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Fleet]:
    """A fleet with two attempts for a shard."""
    job = load_job(jobs.write_job(tmp_path, execution={"max_attempts": 2}))
    (tmp_path / "run-0" / "votes").mkdir(parents=True)

    def make_one(actor_class: type[CertifierActor], share: Share = ONE_ACTOR, *, plans: int = 1) -> Fleet:
        runs = [Run(str(tmp_path / name), run_record(run_id=name), AnyStore(Storage())) for name in RUNS[:plans]]
        return Fleet([plan_of(job, run) for run in runs], share, actor_class)

    return make_one


def plan_of(job: Job, run: Run) -> Plan:
    return Plan(job, run, "", None, "", (), tuple(map(task_of, range(20))))


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "LOOK_S", 0.2)


def done_by(events: Sequence[Event]) -> list[int]:
    return sorted(event.task.index for event in events if isinstance(event, ShardReport))


def test_every_shard_is_reported_once(make: Callable[..., Fleet]) -> None:
    """With two actors; a batch is a beat."""
    events = list(make(PlainActor, Share(0.5, 0, 2)).work(list(map(task_of, range(9)))))
    assert done_by(events) == list(range(9))
    assert sum(isinstance(event, Beat) for event in events) == 9


def test_an_actor_waits_until_its_introduction_is_heard(make: Callable[..., Fleet]) -> None:
    """Whoever hears it may object: then nothing is published."""
    events = make(IntroducedActor).work([task_of(0)])
    assert isinstance(next(events), Introduction)
    assert done_by(list(events)) == [0]


def test_errors_cost_what_the_table_says(make: Callable[..., Fleet]) -> None:
    """A bad tar fails at once; an error and a death are tried again, until two attempts are used up."""
    events = list(make(FailingActor).work(list(map(task_of, range(5)))))
    failures = {event.task.index: event.reason for event in events if isinstance(event, Failure)}
    assert failures.keys() == {0, 1, 2}
    assert failures[0] == "00.tar: it is empty"
    assert failures[1] == "shard 01.tar: given up after 2 attempts, the last: no answer"
    assert failures[2].startswith("shard 02.tar: given up after 2 attempts, the last: an actor died: ")
    assert done_by(events) == [3, 4]
    assert {event.task.index for event in events if isinstance(event, Requeued)} >= {1, 2}


def test_a_wrong_request_ends_the_run(make: Callable[..., Fleet]) -> None:
    """It is raised as the actor raised it."""
    with pytest.raises(RequestError, match="model: it does not fit"):
        list(make(RefusingActor).work([task_of(0)]))


def test_a_stalled_actor_is_ended(make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it answers; its shard is given up after two attempts."""
    monkeypatch.setattr(attempts, "STALLED_S", 1.0)
    events = list(make(SilentActor).work([task_of(0)]))
    assert [type(event) for event in events if not isinstance(event, Beat)] == [Requeued, Failure]


def test_after_an_interrupt_finished_images_are_published(make: Callable[..., Fleet]) -> None:
    """Shards that are not finished end without a word."""
    working = make(SilentActor, Share(0.5, 0, 2))
    events = working.work([task_of(0), task_of(1)])
    assert [type(next(events)) for _ in range(2)] == [Beat, Beat]
    assert done_by(list(working.wind_down())) == [1]


def test_an_actor_that_cannot_start_is_named_once(make: Callable[..., Fleet], tmp_path: Path) -> None:
    """The run goes on with the others."""
    events = list(make(BrokenActor, Share(0.5, 0, 2)).work(list(map(task_of, range(20)))))
    notices = [event for event in events if isinstance(event, CannotStart)]
    assert notices == [CannotStart("an actor cannot start: ModuleNotFoundError: No module named 'torch'")]
    assert done_by(events) == list(range(20))


def test_the_first_actor_must_start(make: Callable[..., Fleet], tmp_path: Path) -> None:
    """After as many attempts as a shard has."""
    (tmp_path / "run-0" / "started").touch()
    with pytest.raises(RequestError, match="an actor cannot start: ModuleNotFoundError: No module named 'torch'"):
        make(BrokenActor).first_member()


def test_a_machine_must_come(make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start and later: an actor that no machine can hold is waited for, but not for ever."""
    monkeypatch.setattr(fleet, "NO_MACHINE_S", 0.5)
    huge = Share(cpus=1000, gpus=0, actors=1)
    with pytest.raises(RunError, match=r"no machine came within 0\.5 s that has 1000 CPUs and 0 GPUs"):
        make(PlainActor, huge).first_member()
    with pytest.raises(RunError, match=r"no machine has been left for 0\.5 s"):
        list(make(PlainActor, huge).work([task_of(0)]))


def test_a_shared_run_skips_what_is_published(make: Callable[..., Fleet], tmp_path: Path) -> None:
    """Another driver may have done it since the plan was made; in a run of its own nobody looks."""
    tasks = list(map(task_of, range(3)))
    (tmp_path / "run-0" / tasks[1].file_name).touch()
    events = list(make(PlainActor).work(tasks, shared=True))
    assert [event for event in events if isinstance(event, FoundPublished)] == [FoundPublished(tasks[1], ("run-0",))]
    assert done_by(events) == [0, 2]
    assert done_by(list(make(PlainActor).work(tasks))) == [0, 1, 2]


def test_another_driver_that_is_met_is_noticed(make: Callable[..., Fleet], tmp_path: Path) -> None:
    """If somebody else published a shard first, the next ones are looked up before they are handed out."""
    tasks = list(map(task_of, range(3)))
    (tmp_path / "run-0" / tasks[2].file_name).touch()
    events = list(make(SecondReporter).work(tasks))
    assert FoundPublished(tasks[2], ("run-0",)) in events


def test_where_machines_can_come_more_actors_are_asked_for(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An autoscaler sees what does not fit: twice the room, at least one."""
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 3.0}}])
    waiting = make(PlainActor, Share(cpus=1, gpus=0, actors=None))
    assert waiting._room() == 3
    monkeypatch.setattr(resources, "has_autoscaler", lambda: True)
    assert waiting._room() == 6
    monkeypatch.setattr(ray, "nodes", list)
    assert waiting._room() == 1


def test_a_shard_is_done_when_all_its_runs_are_reported(make: Callable[..., Fleet]) -> None:
    """An error after the report of one of two runs is heard."""
    events = list(make(HalfReporter, plans=2).work([task_of(0)]))
    assert [event.reason for event in events if isinstance(event, Failure)] == [
        "00.tar: the second run holds other images"
    ]
    events = list(make(HalfReporter).work([task_of(0)]))
    assert not [event for event in events if isinstance(event, Failure)]


def test_an_interrupt_while_a_shard_is_handed_out_leaves_no_shard_behind(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the fleet would wait for a stream that never began."""

    def interrupt(*_: object) -> set[str]:
        raise KeyboardInterrupt

    one = make(PlainActor)
    monkeypatch.setattr(Run, "published", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(one.work([task_of(0)], shared=True))
    monkeypatch.setattr(fleet, "WIND_DOWN_S", 0.0)
    assert list(one.wind_down()) == []
    assert not one._attempts.busy


def test_an_interrupt_while_a_failure_is_judged_leaves_no_shard_behind(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its machine lives is a question to the cluster, and takes time."""

    def interrupt(*_: object) -> set[str]:
        raise KeyboardInterrupt

    one = make(FailingActor)
    monkeypatch.setattr(resources, "alive_among", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(one.work([task_of(1)]))
    monkeypatch.setattr(resources, "alive_among", set)
    assert list(one.wind_down()) == []
    assert not one._attempts.busy
