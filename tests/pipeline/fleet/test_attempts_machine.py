"""Who gets which shard, what a death costs, when a shard is given up: over random histories."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smoothcert.manifests.errors import RunError, ShardError
from smoothcert.pipeline.fleet.attempts import (
    SHARDS_PER_ACTOR,
    STALLED_S,
    Attempts,
    Decision,
)
from smoothcert.pipeline.fleet.events import Failure, Requeued
from smoothcert.workers.runs.shard_task import ShardTask
from tests.helpers.made_up_actors import task_of


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
        self.attempts.add(name)
        self.attempts.runs(name, machine)
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
        self.attempts.add("last")
        self.attempts.runs("last", "last machine")
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
TestHistories.settings = settings(max_examples=300, stateful_step_count=40)
