"""Who gets which shard, what a death costs, and when a shard is given up.

    what happens                                what it costs the shard      the actor
    its tar cannot be certified (ShardError)    it fails at once             goes on
    an error that our code raises on purpose    an attempt                   goes on
    any other error                             an attempt                   is replaced: the process may be broken
    no batch is done for a long time            an attempt                   is replaced
    the actor dies or falls silent,
        its machine lives, it had one shard     an attempt                   is replaced
        its machine lives, it had two shards    nothing: it is unknown which of the two is at fault
        its machine is gone                     nothing
    the actor is replaced for another shard     nothing
    its report came before any of these         nothing: the shard is done

A shard that is not done goes back to the end of the queue. After `max_attempts` it is given up, so that a shard that
kills every actor does not stop the run.

- An actor has up to two shards: while the votes of one are computed, the other is fetched, decoded or published.
- It gets a second shard only if the queue holds enough for all actors.
- After a loss, a shard has its actor to itself, so that the next loss shows which shard is at fault.
- A shard does not return to a machine where it failed, unless it failed on all: one bad machine alone cannot use up
  its attempts.

Pure: time and facts are arguments. Not covered: actors that cannot start (starts.py); carrying it out with Ray
(fleet.py).
"""

from collections import defaultdict, deque
from collections.abc import Collection, Hashable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from smoothcert.manifests.errors import ShardError, SmoothcertError
from smoothcert.pipeline.fleet.events import CannotStart, Failure, Requeued
from smoothcert.pipeline.fleet.starts import Starts
from smoothcert.workers.runs.shard_task import ShardTask

SHARDS_PER_ACTOR = 2
QUEUE_LOOKAHEAD = 100  # shards at the head of the queue among which an actor's next one is chosen
STALLED_S = 1800.0  # the first batch of a shard may take this long, download and loading included

ActorT = TypeVar("ActorT", bound=Hashable)
Decision = list[Failure | Requeued]


class Dispatch(NamedTuple, Generic[ActorT]):
    """A shard that an actor gets."""

    actor: ActorT
    task: ShardTask


@dataclass(eq=False)
class _Actor:
    """An actor.

    Attributes:
        machine: where it runs; None until it runs.
        shards: its shards, by index.
        reported: indices of the shards whose report has come but whose stream has not ended.
        progress_at: when it last did a batch.
    """

    machine: str | None = None
    shards: dict[int, ShardTask] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)
    progress_at: float = 0.0

    def take_away(self, task: ShardTask) -> bool:
        """Remove a shard, and return whether its report has come."""
        del self.shards[task.index]
        was_reported = task.index in self.reported
        self.reported.discard(task.index)
        return was_reported


@dataclass
class _History:
    """What has happened to a shard.

    Attributes:
        alone: an actor was lost while it had this shard, so the shard no longer shares an actor.
        failed_on: machines of its errors and stalls, one entry each.
        lost_on: machines on which an actor was lost that had this shard alone.
    """

    alone: bool = False
    failed_on: list[str | None] = field(default_factory=list)
    lost_on: list[str | None] = field(default_factory=list)

    def attempts(self, alive: Collection[str]) -> int:
        """A loss counts if its machine lives on."""
        return len(self.failed_on) + sum(machine in alive for machine in self.lost_on)

    def machines(self) -> set[str | None]:
        return {*self.failed_on, *self.lost_on}


class Attempts(Generic[ActorT]):
    """The shards of a run and the actors that do them.

    Args:
        max_attempts: after this many attempts a shard is given up.
    """

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._queue: deque[ShardTask] = deque()
        self._histories: defaultdict[int, _History] = defaultdict(_History)
        self._actors: dict[ActorT, _Actor] = {}
        self._stopped = False
        self._starts = Starts()

    @property
    def actors(self) -> AbstractSet[ActorT]:
        """The actors that live or start. Any other actor must be ended."""
        return self._actors.keys()

    @property
    def busy(self) -> list[ActorT]:
        """Actors that have a shard."""
        return [name for name, actor in self._actors.items() if actor.shards]

    @property
    def is_over(self) -> bool:
        """Whether every shard is done, failed or given up."""
        return not self._queue and not self.busy

    def machine_of(self, name: ActorT) -> str | None:
        """Where an actor runs; None until it runs."""
        return self._actors[name].machine

    def has_shards(self, name: ActorT) -> bool:
        """Whether an actor has a shard."""
        return bool(self._actors[name].shards)

    def enqueue(self, tasks: Iterable[ShardTask]) -> None:
        """Put shards at the end of the queue."""
        self._queue.extend(tasks)

    def stop(self) -> None:
        """Hand out no more shards. Unfinished shards wait until the command is run again."""
        self._stopped = True
        self._queue.clear()

    # Actors come

    def actors_missing(self, wanted: int, now: float) -> int:
        """How many actors to start. If negative: how many actors without a machine are not needed.

        Args:
            wanted: how many actors there is room for.
            now: seconds.
        """
        missing = min(wanted, len(self._queue) + len(self.busy)) - len(self._actors)
        may_start = max(0, self._starts.most(wanted, now) - len(self._actors))
        return min(missing, may_start)

    def waiting(self) -> list[ActorT]:
        """Actors that have no machine yet."""
        return [name for name, actor in self._actors.items() if actor.machine is None]

    def add(self, name: ActorT) -> None:
        """An actor is being started."""
        self._actors[name] = _Actor()

    def runs(self, name: ActorT, machine: str) -> None:
        """An actor runs."""
        actor = self._actors[name]
        if actor.machine is None:
            actor.machine = machine
            self._starts.succeeded()

    def cannot_start(self, name: ActorT, reason: str, now: float) -> list[CannotStart]:
        """An actor ended before it ran. Each reason is reported once."""
        del self._actors[name]
        return self._starts.failed(reason, running=len(self._actors) - len(self.waiting()), now=now)

    def dismiss(self, name: ActorT) -> None:
        """An actor without shards is not needed, or is gone."""
        del self._actors[name]

    # Shards go out

    def hand_out(self, wanted: int, now: float) -> Iterator[Dispatch[ActorT]]:
        """Give shards to actors that run: one to each, then a second. The caller may take each back: `take_back`.

        Args:
            wanted: an actor gets a second shard only if the queue holds more shards than this.
            now: seconds.
        """
        for count in range(1, SHARDS_PER_ACTOR + 1):
            for name, actor in self._actors.items():
                while actor.machine and len(actor.shards) < count and (task := self._next(actor, wanted)):
                    if not actor.shards:
                        actor.progress_at = now
                    actor.shards[task.index] = task
                    yield Dispatch(name, task)

    def _next(self, actor: _Actor, wanted: int) -> ShardTask | None:
        if actor.shards and (len(self._queue) <= wanted or any(map(self._is_alone, actor.shards.values()))):
            return None
        for task in islice(self._queue, QUEUE_LOOKAHEAD):
            if not (actor.shards and self._is_alone(task)) and self._may_try(actor, task):
                self._queue.remove(task)
                return task
        return None

    def _is_alone(self, task: ShardTask) -> bool:
        return task.index in self._histories and self._histories[task.index].alone

    def _may_try(self, actor: _Actor, task: ShardTask) -> bool:
        """Whether the shard has not failed on this machine, or has failed on all machines."""
        if task.index not in self._histories:
            return True
        tried = self._histories[task.index].machines()
        return actor.machine not in tried or all(one.machine in tried for one in self._actors.values() if one.machine)

    def take_back(self, name: ActorT, task: ShardTask) -> None:
        """Take back a shard that was just handed out: somebody published it, or it did not reach the actor."""
        self._actors[name].take_away(task)

    # Shards go on and come back

    def progressed(self, name: ActorT, now: float) -> None:
        """An actor has done a batch."""
        self._actors[name].progress_at = now

    def reported(self, name: ActorT, task: ShardTask) -> None:
        """The report of a shard has come. The shard is done, even if its actor dies now."""
        self._actors[name].reported.add(task.index)

    def stalled(self, now: float) -> list[ActorT]:
        """Actors that have done no batch for a long time."""
        return [name for name in self.busy if now - self._actors[name].progress_at > STALLED_S]

    def ended(self, name: ActorT, task: ShardTask) -> Decision:
        """The stream of a shard has ended. If no report came, the actor was stopped."""
        if self._actors[name].take_away(task):
            return []
        return self._requeue(task, "it was stopped")

    def machines_in_doubt(self, name: ActorT) -> set[str | None]:
        """The machines that may have died; `failed` and `lost` need to know which of them live."""
        actor = self._actors[name]
        lost_on = (self._histories[index].lost_on for index in actor.shards if index in self._histories)
        return {actor.machine, *(machine for machines in lost_on for machine in machines)} if actor.shards else set()

    def failed(
        self, name: ActorT, task: ShardTask, cause: SmoothcertError, alive: Collection[str], *, on_purpose: bool
    ) -> Decision:
        """A shard ends in an error.

        Args:
            name: the actor.
            task: the shard.
            cause: what was raised, in one line.
            alive: those of `machines_in_doubt` that live.
            on_purpose: whether our code raised it. Any other error may have broken the process, as CUDA errors do.
                Every later shard there would fail, so the actor is replaced.
        """
        actor = self._actors[name]
        is_done = actor.take_away(task)
        decision: Decision = []
        if not is_done and isinstance(cause, ShardError):
            decision.append(Failure(task, str(cause)))
        elif not is_done:
            self._histories[task.index].failed_on.append(actor.machine)
            decision += self._retry_or_give_up(task, str(cause), alive)
        if not on_purpose:
            del self._actors[name]
            for other in actor.shards.values():
                if other.index not in actor.reported:
                    decision += self._requeue(other, f"its actor was replaced after an error: {cause}")
        return decision

    def lost(self, name: ActorT, reason: str, alive: Collection[str], *, stalled: bool = False) -> Decision:
        """An actor is dead or counts as dead. What it still publishes does no harm.

        Args:
            name: the actor.
            reason: one line.
            alive: those of `machines_in_doubt` that live.
            stalled: it answers but does no batch, so its machine lives.
        """
        actor = self._actors.pop(name)
        decision: Decision = []
        for task in actor.shards.values():
            history = self._histories[task.index]
            history.alone = True
            if len(actor.shards) == 1:
                (history.failed_on if stalled else history.lost_on).append(actor.machine)
            if task.index not in actor.reported:
                decision += self._retry_or_give_up(task, reason, alive)
        return decision

    def _retry_or_give_up(self, task: ShardTask, reason: str, alive: Collection[str]) -> Decision:
        attempts = self._histories[task.index].attempts(alive)
        if attempts < self._max_attempts:
            return self._requeue(task, reason)
        return [Failure(task, f"shard {task.shard.name}: given up after {attempts} attempts, the last: {reason}")]

    def _requeue(self, task: ShardTask, reason: str) -> Decision:
        if self._stopped:
            return []
        self._queue.append(task)
        return [Requeued(task, reason)]
