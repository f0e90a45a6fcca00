"""Who gets which shard, what a death costs, when a shard is given up: rule by rule, then over random histories."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smoothcert.manifests.errors import RunError, ShardError
from smoothcert.pipeline.certify.attempts import (
    QUEUE_LOOKAHEAD,
    SHARDS_PER_ACTOR,
    STALLED_S,
    Attempts,
    Decision,
)
from smoothcert.pipeline.certify.events import CannotStart, Failure, Requeued
from smoothcert.workers.runs.shard_task import ShardTask
from tests.helpers.made_up_actors import task_of

MAX_ATTEMPTS = 3


TASKS = [task_of(index) for index in range(10)]


def attempts_of(shards: int, *, max_attempts: int = MAX_ATTEMPTS, **machines: str) -> Attempts[str]:
    """So many shards in the queue, and actors that run on these machines."""
    attempts = Attempts[str](max_attempts)
    attempts.enqueue(map(task_of, range(shards)))
    for actor, machine in machines.items():
        start(attempts, actor, machine)
    return attempts


def start(attempts: Attempts[str], actor: str, machine: str) -> None:
    attempts.add(actor)
    attempts.runs(actor, machine)


def hand_out(attempts: Attempts[str], *, wanted: int = 1, now: float = 0.0) -> dict[str, list[int]]:
    """The shards that each actor gets now."""
    got: dict[str, list[int]] = {}
    for actor, task in attempts.hand_out(wanted, now):
        got.setdefault(actor, []).append(task.index)
    return got


def again(reason: str, *indices: int) -> Decision:
    return [Requeued(TASKS[index], reason) for index in indices]


def given_up(index: int, attempts: int, reason: str) -> Decision:
    return [Failure(TASKS[index], f"shard {index:02d}.tar: given up after {attempts} attempts, the last: {reason}")]


# What happens, and what it costs


def test_a_bad_tar_fails_at_once_and_its_actor_goes_on() -> None:
    """Trying again would not help."""
    attempts = attempts_of(1, a="m")
    hand_out(attempts)
    assert attempts.failed("a", TASKS[0], ShardError("bad"), {"m"}, on_purpose=True) == [Failure(TASKS[0], "bad")]
    assert "a" in attempts.actors
    assert attempts.is_over


def test_an_error_on_purpose_costs_an_attempt_and_its_actor_goes_on() -> None:
    """The actor gets the same shard again where there is no other machine, until its attempts are used up."""
    attempts = attempts_of(1, max_attempts=2, a="m")
    hand_out(attempts)
    assert attempts.failed("a", TASKS[0], RunError("no answer"), {"m"}, on_purpose=True) == again("no answer", 0)
    assert hand_out(attempts) == {"a": [0]}
    last = attempts.failed("a", TASKS[0], RunError("no answer"), {"m"}, on_purpose=True)
    assert last == given_up(0, 2, "no answer")
    assert attempts.is_over


def test_any_other_error_costs_an_attempt_and_replaces_the_actor() -> None:
    """The process may be broken, as CUDA errors leave it: its other shard goes back and is charged nothing."""
    attempts = attempts_of(3, max_attempts=1, a="m")
    assert hand_out(attempts) == {"a": [0, 1]}
    decision = attempts.failed("a", TASKS[0], RunError("CUDA error"), {"m"}, on_purpose=False)
    assert decision == given_up(0, 1, "CUDA error") + again("its actor was replaced after an error: CUDA error", 1)
    assert "a" not in attempts.actors


@pytest.mark.parametrize("machine_lives", [True, False])
def test_a_stall_costs_an_attempt(machine_lives: bool) -> None:
    """Also if its machine is gone by then: the actor answered, so the machine was not the reason."""
    attempts = attempts_of(1, max_attempts=1, a="m")
    hand_out(attempts)
    alive = {"m"} if machine_lives else set()
    assert attempts.lost("a", "no batch", alive, stalled=True) == given_up(0, 1, "no batch")


def test_an_actor_stalls_if_it_does_no_batch_for_a_long_time() -> None:
    """Counted from its first shard and from each batch; a second shard is no progress. An idle actor never stalls."""
    attempts = attempts_of(3, a="m", idle="m")
    attempts.dismiss("idle")
    hand_out(attempts, wanted=3, now=100)
    assert hand_out(attempts, wanted=1, now=200) == {"a": [1]}
    assert attempts.stalled(100 + STALLED_S) == []
    assert attempts.stalled(101 + STALLED_S) == ["a"]
    attempts.progressed("a", now=1000)
    assert attempts.stalled(1000 + STALLED_S) == []
    start(attempts, "b", "m")
    assert attempts.stalled(1001 + STALLED_S) == ["a"]


@pytest.mark.parametrize(
    ("shards", "machine_lives", "costs"),
    [
        (1, True, True),
        (1, False, False),  # the machine's end is not the shard's fault
        (2, True, False),  # whose fault it was is unknown
        (2, False, False),
    ],
)
def test_a_death_costs_an_attempt_if_the_machine_lives_and_the_actor_had_one_shard(
    shards: int, machine_lives: bool, costs: bool
) -> None:
    """Nothing else counts: with one attempt allowed, the shard is given up exactly then."""
    attempts = attempts_of(shards, max_attempts=1, a="m")
    assert hand_out(attempts, wanted=0) == {"a": list(range(shards))}
    alive = {"m"} if machine_lives else set()
    decision = attempts.lost("a", "killed", alive)
    assert decision == (given_up(0, 1, "killed") if costs else again("killed", *range(shards)))


def test_a_loss_is_forgiven_if_its_machine_ends_later() -> None:
    """A machine that is about to end kills actors first."""
    attempts = attempts_of(1, max_attempts=2, a="dying", b="good")
    hand_out(attempts)
    assert attempts.lost("a", "killed", {"dying", "good"}) == again("killed", 0)
    hand_out(attempts)
    assert attempts.machines_in_doubt("b") == {"dying", "good"}
    assert attempts.lost("b", "killed", {"good"}) == again("killed", 0)


@pytest.mark.parametrize("way", ["lost", "failed"])
def test_a_report_before_the_end_of_its_actor_counts(way: str) -> None:
    """The shard is done: it neither goes back nor is given up."""
    attempts = attempts_of(2, max_attempts=1, a="m")
    assert hand_out(attempts, wanted=0) == {"a": [0, 1]}
    attempts.reported("a", TASKS[0])
    if way == "lost":
        assert attempts.lost("a", "killed", {"m"}) == again("killed", 1)
    else:
        decision = attempts.failed("a", TASKS[0], RunError("odd"), {"m"}, on_purpose=False)
        assert decision == again("its actor was replaced after an error: odd", 1)


def test_a_shard_ends_with_its_stream() -> None:
    """Until then its actor has it, so that the report's sender is not ended early."""
    attempts = attempts_of(1, a="m")
    hand_out(attempts)
    attempts.reported("a", TASKS[0])
    assert not attempts.is_over
    assert attempts.ended("a", TASKS[0]) == []
    assert attempts.is_over


# Who gets which shard


def test_shards_go_out_in_the_order_of_the_queue() -> None:
    """One to each actor first, then a second one to each; one that comes back is the last."""
    attempts = attempts_of(7, a="m", b="n")
    assert hand_out(attempts, wanted=2) == {"a": [0, 2], "b": [1, 3]}
    attempts.failed("a", TASKS[0], RunError("x"), {"m"}, on_purpose=True)
    for index in (1, 3):
        attempts.reported("b", TASKS[index])
        attempts.ended("b", TASKS[index])
    assert hand_out(attempts, wanted=0) == {"b": [4, 6], "a": [5]}
    attempts.take_back("a", TASKS[5])
    attempts.take_back("b", TASKS[6])
    assert hand_out(attempts, wanted=0) == {"b": [0]}  # it failed at a's machine
    assert SHARDS_PER_ACTOR == 2


@pytest.mark.parametrize(("wanted", "gets"), [(2, [0, 1]), (3, [0])])
def test_a_second_shard_needs_a_queue_with_enough_for_all(wanted: int, gets: list[int]) -> None:
    """Four shards: three are left after the first, which must be more than the actors wanted."""
    assert hand_out(attempts_of(4, a="m"), wanted=wanted) == {"a": gets[:1] + gets[1:]}


def test_after_a_loss_a_shard_has_its_actor_to_itself() -> None:
    """It is given no second shard, and is no second shard."""
    attempts = attempts_of(5, a="m")
    assert hand_out(attempts) == {"a": [0, 1]}
    attempts.lost("a", "killed", {"m"})
    start(attempts, "b", "m")
    assert hand_out(attempts, wanted=0) == {"b": [2, 3]}
    for index in (2, 3):
        attempts.reported("b", TASKS[index])
        attempts.ended("b", TASKS[index])
    assert hand_out(attempts, wanted=0) == {"b": [4]}  # shards 0 and 1 wait
    attempts.ended("b", TASKS[4])
    attempts.stop()
    attempts = attempts_of(2, a="m")
    hand_out(attempts, wanted=0)
    attempts.lost("a", "killed", {"m"})
    start(attempts, "b", "m")
    assert hand_out(attempts, wanted=0) == {"b": [0]}


def test_a_shard_avoids_machines_where_it_failed() -> None:
    """Unless it failed on all of those that run actors now."""
    attempts = attempts_of(1, a="m", b="n")
    attempts.dismiss("b")
    hand_out(attempts)
    attempts.failed("a", TASKS[0], RunError("x"), {"m"}, on_purpose=True)
    start(attempts, "c", "n")
    assert hand_out(attempts) == {"c": [0]}
    attempts.lost("c", "killed", {"m", "n"})
    assert hand_out(attempts) == {"a": [0]}


def test_the_lookahead_is_limited() -> None:
    """A shard behind so many that may not be tried here waits: looking at thousands for each actor would take long."""
    attempts = Attempts[str](MAX_ATTEMPTS)
    *tasks, fresh = map(task_of, range(QUEUE_LOOKAHEAD + 2))
    attempts.enqueue(tasks)
    start(attempts, "bad", "m")
    for task in tasks:
        assert hand_out(attempts, wanted=1000) == {"bad": [task.index]}
        attempts.failed("bad", task, RunError("x"), {"m"}, on_purpose=True)
    attempts.enqueue([fresh])
    start(attempts, "good", "n")
    assert hand_out(attempts, wanted=1000) == {"good": [0]}
    attempts.take_back("good", tasks[0])
    assert hand_out(attempts, wanted=1000) == {"good": [1], "bad": [fresh.index]}


def test_an_actor_without_a_machine_gets_nothing() -> None:
    """Nor is it kept where there is nothing to do for it."""
    attempts = attempts_of(1)
    attempts.add("a")
    assert hand_out(attempts) == {}
    assert attempts.waiting() == ["a"]
    assert attempts.actors_missing(5, now=0) == 0
    attempts.stop()
    assert attempts.actors_missing(5, now=0) == -1


def test_a_shard_that_another_driver_has_published_is_over() -> None:
    """Its actor gets the next one in the same round."""
    attempts = attempts_of(2, a="m")
    given = []
    for actor, task in attempts.hand_out(5, 0):
        given.append(task.index)
        if task.index == 0:
            attempts.take_back(actor, task)
    assert given == [0, 1]


def test_after_a_stop_nothing_goes_out_or_back() -> None:
    """What an actor still ends is reported; what it leaves is done by the next run of the command."""
    attempts = attempts_of(5, a="m", b="n")
    hand_out(attempts, wanted=0)
    attempts.stop()
    assert hand_out(attempts) == {}
    attempts.reported("a", TASKS[0])
    assert attempts.ended("a", TASKS[0]) == []
    assert attempts.ended("a", TASKS[2]) == []
    assert attempts.lost("b", "killed", {"n"}) == []
    assert attempts.is_over


# How many actors


def test_as_many_actors_start_as_there_are_shards_and_room() -> None:
    """A busy actor counts as a shard."""
    attempts = attempts_of(3)
    assert [attempts.actors_missing(wanted, now=0) for wanted in (1, 3, 8)] == [1, 3, 3]
    start(attempts, "a", "m")
    hand_out(attempts, wanted=9)
    assert [attempts.actors_missing(wanted, now=0) for wanted in (1, 3, 8)] == [0, 2, 2]


def test_a_lost_actor_is_replaced_while_another_machine_cannot_start_any() -> None:
    """The wait is for machines that fail, not for those that work. Actors that start already are not ended for it."""
    attempts = attempts_of(9, a="m", b="m")
    attempts.add("c")
    assert attempts.cannot_start("c", "no torch", now=0) == [CannotStart("no torch")]
    assert attempts.actors_missing(3, now=1) == 0
    assert attempts.actors_missing(3, now=5) == 1
    hand_out(attempts)
    attempts.lost("a", "killed", {"m"})
    assert attempts.actors_missing(3, now=1) == 1
    for name in "def":
        attempts.add(name)
    assert attempts.actors_missing(4, now=1) == 0


# Whole runs


@settings(deadline=None)
@given(
    machines=st.integers(1, 3),
    actors=st.integers(1, 4),
    shards=st.integers(1, 30),
    max_attempts=st.integers(1, 5),
    poison=st.sets(st.integers(0, 29), max_size=3),
)
def test_a_shard_that_kills_every_actor_is_given_up_and_the_run_ends(
    machines: int, actors: int, shards: int, max_attempts: int, poison: set[int]
) -> None:
    """After exactly `max_attempts` deaths that count; all other shards are done, whatever company they had."""
    attempts, started, deaths, done = attempts_of(shards, max_attempts=max_attempts), 0, dict[int, int](), set[int]()
    alive = {f"m{number}" for number in range(machines)}
    for _ in range(10 * (shards + max_attempts * (len(poison) + 1))):
        if attempts.is_over:
            break
        for _ in range(attempts.actors_missing(actors, now=0)):
            start(attempts, f"a{started}", f"m{started % machines}")
            started += 1
        list(attempts.hand_out(actors, 0))
        for name in attempts.busy:
            has = list(attempts._actors[name].shards.values())
            if any(task.index in poison for task in has):
                if len(has) == 1:
                    deaths[has[0].index] = deaths.get(has[0].index, 0) + 1
                attempts.lost(name, "killed", alive)
                continue
            for task in has:
                attempts.reported(name, task)
                attempts.ended(name, task)
                done.add(task.index)
    assert attempts.is_over
    assert done == set(range(shards)) - poison
    assert deaths == {index: max_attempts for index in poison if index < shards}


@dataclass
class Known:
    """What the test knows of a shard.

    Attributes:
        fate: `done`, `failed`, `given up`, `left` by a stop, or None.
        charges: machines of errors and stalls.
        losses: machines on which its actor died while it had this shard only.
        alone: an actor was lost with it.
    """

    fate: str | None = None
    charges: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    alone: bool = False


class Histories(RuleBasedStateMachine):
    """Machines, actors and shards to which anything happens at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = Attempts[str](2)
        self.shards: dict[int, Known] = {}
        self.machine_of: dict[str, str] = {}  # of actors that run
        self.at: dict[str, set[int]] = {}  # shards of these actors
        self.reported: set[int] = set()  # whose stream has not ended
        self.alive: set[str] = set()
        self.named = 0
        self.now = 0.0
        self.stopped = False

    def new(self, prefix: str) -> str:
        self.named += 1
        return f"{prefix}{self.named}"

    # Machines and actors come and go

    @initialize(shards=st.integers(1, 3), actors=st.integers(1, 3))
    def run_begins(self, shards: int, actors: int) -> None:
        self.shards_are_added(shards)
        for _ in range(actors):
            self.alive.add(self.new("m"))
            self.run_actor(self.new("a"), max(self.alive))
        self.shards_are_handed_out(1, published=False)

    @rule(data=st.data(), how=st.sampled_from(["on a new machine", "beside others", "not yet", "never"]))
    def actor_is_started(self, data: st.DataObject, how: str) -> None:
        name = self.new("a")
        self.attempts.add(name)
        if how == "on a new machine" or (how == "beside others" and not self.alive):
            self.alive.add(self.new("m"))
        if how in ("on a new machine", "beside others"):
            self.run_actor(name, data.draw(st.sampled_from(sorted(self.alive))))
        elif how == "never":
            self.attempts.cannot_start(name, "why", self.now)

    def run_actor(self, name: str, machine: str) -> None:
        start(self.attempts, name, machine)
        self.machine_of[name], self.at[name] = machine, set()

    @precondition(lambda self: self.at)
    @rule(data=st.data(), stalls=st.booleans())
    def actor_is_lost(self, data: st.DataObject, stalls: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.at)))
        self.lose(name, stalled=stalls and name in self.attempts.busy)
        self.shards_are_handed_out(1, published=False)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def machine_ends(self, data: st.DataObject) -> None:
        """Never a reason to give up a shard."""
        machine = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.remove(machine)
        for name in [name for name in self.at if self.machine_of[name] == machine]:
            assert not any(isinstance(event, Failure) for event in self.lose(name))

    def lose(self, name: str, *, stalled: bool = False) -> Decision:
        has = self.at[name]
        for index in has:
            self.shards[index].alone = True
            if len(has) == 1:
                known = self.shards[index]
                (known.charges if stalled else known.losses).append(self.machine_of[name])
        assert self.attempts.machines_in_doubt(name) >= {machine for i in has for machine in self.shards[i].losses}
        decision = self.attempts.lost(name, "lost", self.alive, stalled=stalled)
        self.check(decision, self.leaves(name))
        return decision

    def leaves(self, name: str) -> set[int]:
        """An actor is no more; its shards that are not done."""
        has = self.at.pop(name)
        open_shards, self.reported = has - self.reported, self.reported - has
        assert name not in self.attempts.actors
        return open_shards

    # Shards

    @precondition(lambda self: not self.stopped)
    @rule(count=st.integers(1, 3))
    def shards_are_added(self, count: int) -> None:
        tasks = [task_of(index) for index in range(len(self.shards), len(self.shards) + count)]
        self.shards |= {task.index: Known() for task in tasks}
        self.attempts.enqueue(tasks)

    @rule(wanted=st.integers(0, 4), published=st.booleans())
    def shards_are_handed_out(self, wanted: int, published: bool) -> None:
        for name, task in self.attempts.hand_out(wanted, self.now):
            self.check_dispatch(name, task.index, wanted)
            if published:
                self.attempts.take_back(name, task)
                self.shards[task.index].fate, published = "done", False
            else:
                self.at[name].add(task.index)

    def check_dispatch(self, name: str, index: int, wanted: int) -> None:
        known, others = self.shards[index], self.at[name]
        assert not self.stopped
        assert known.fate is None
        assert all(index not in has for has in self.at.values())
        if others:
            assert len(others) < SHARDS_PER_ACTOR
            assert len(self.attempts._queue) >= wanted
            assert not any(self.shards[one].alone for one in [index, *others])
        tried = {*known.charges, *known.losses}
        assert self.machine_of[name] not in tried or {self.machine_of[one] for one in self.at} <= tried

    def draw_shard(self, data: st.DataObject, allowed: Callable[[int], bool]) -> tuple[str, ShardTask] | None:
        there = [(name, index) for name in sorted(self.at) for index in sorted(self.at[name]) if allowed(index)]
        if not there:
            return None
        name, index = data.draw(st.sampled_from(there))
        return name, task_of(index)

    @rule(data=st.data())
    def report_comes(self, data: st.DataObject) -> None:
        if drawn := self.draw_shard(data, lambda index: index not in self.reported):
            self.attempts.reported(*drawn)
            self.reported.add(drawn[1].index)
            self.shards[drawn[1].index].fate = "done"

    @rule(data=st.data())
    def stream_ends(self, data: st.DataObject) -> None:
        """After the report, or because the actor was told to stop."""
        if drawn := self.draw_shard(data, lambda index: index in self.reported or self.stopped):
            name, task = drawn
            self.at[name].remove(task.index)
            self.check(self.attempts.ended(name, task), {task.index} - self.reported)
            self.reported.discard(task.index)

    @rule(data=st.data(), on_purpose=st.booleans(), tar_is_bad=st.booleans())
    def shard_fails(self, data: st.DataObject, on_purpose: bool, tar_is_bad: bool) -> None:
        if (drawn := self.draw_shard(data, lambda index: True)) is None:
            return
        name, task = drawn
        cause = ShardError("bad") if tar_is_bad and on_purpose else RunError("error")
        decision = self.attempts.failed(name, task, cause, self.alive, on_purpose=on_purpose)
        open_shards = {task.index} - self.reported
        self.at[name].remove(task.index)
        self.reported.discard(task.index)
        if isinstance(cause, ShardError):
            assert decision == [Failure(task_of(index), "bad") for index in open_shards]
            self.shards[task.index].fate = self.shards[task.index].fate or "failed"
            return
        if open_shards:
            self.shards[task.index].charges.append(self.machine_of[name])
        if not on_purpose:
            open_shards |= self.leaves(name)
        self.check(decision, open_shards)
        self.shards_are_handed_out(1, published=False)

    def check(self, decision: Decision, open_shards: set[int]) -> None:
        """Each of the shards is given up exactly if its attempts are used up, and else goes back to the queue."""
        expected = {}
        for index in open_shards:
            known = self.shards[index]
            count = len(known.charges) + sum(machine in self.alive for machine in known.losses)
            if count >= 2:
                known.fate, expected[index] = "given up", Failure
            elif self.stopped:
                known.fate = "left"
            else:
                expected[index] = Requeued
        assert {event.task.index: type(event) for event in decision} == expected
        assert len(decision) == len(expected)

    @rule()
    def interrupt(self) -> None:
        for task in self.attempts._queue:
            self.shards[task.index].fate = "left"
        self.attempts.stop()
        self.stopped = True

    @rule(seconds=st.floats(0, 2 * STALLED_S))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for name in self.attempts.stalled(self.now):
            assert self.at[name]

    @invariant()
    def each_shard_is_in_one_place(self) -> None:
        """Queued, at one actor, or ended: none is lost, none is there twice."""
        queued = [task.index for task in self.attempts._queue]
        at_actors = [index for has in self.at.values() for index in has - self.reported]
        ended = [index for index, known in self.shards.items() if known.fate is not None]
        assert sorted([*queued, *at_actors, *ended]) == list(self.shards)

    @invariant()
    def actors_have_few_shards(self) -> None:
        assert all(len(has) <= SHARDS_PER_ACTOR for has in self.at.values())
        assert sorted(self.attempts.busy) == sorted(name for name, has in self.at.items() if has)
        assert self.attempts.is_over == (not self.attempts._queue and not any(self.at.values()))

    def teardown(self) -> None:
        """While an actor lives that does its shards, the run ends."""
        start(self.attempts, "last", "last machine")
        self.machine_of["last"], self.at["last"] = "last machine", set()
        for _ in range(len(self.shards) + 1):
            self.shards_are_handed_out(1, published=False)
            for name, has in self.at.items():
                for index in sorted(has):
                    self.attempts.reported(name, task_of(index))
                    assert self.attempts.ended(name, task_of(index)) == []
                    self.shards[index].fate = self.shards[index].fate or "done"
                has.clear()
        assert self.attempts.is_over
        assert all(known.fate is not None for known in self.shards.values())


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
