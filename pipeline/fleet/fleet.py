"""Ray actors that work on shards: started, given shards, listened to, ended.

The driver waits on the streams of all shards at once. Every few seconds it asks each actor whether it is alive, because
Ray needs minutes to notice a silent machine. Actors are started as machines join, up to what the job asks for.

Not covered: who gets which shard and what a death costs (attempts.py); what an actor does (actor.py); what the cluster
has (cluster/resources.py); what the user sees (progress.py).
"""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Execution
from smoothcert.pipeline.cluster import resources
from smoothcert.pipeline.cluster.ray_errors import cause_of, is_ours
from smoothcert.pipeline.fleet.actor import ACTOR_OPTIONS, ShardActor
from smoothcert.pipeline.fleet.attempts import STALLED_S, Attempts
from smoothcert.pipeline.fleet.events import Beat, CannotStart, Event, Failure, FoundPublished, Requeued
from smoothcert.pipeline.fleet.seen import Seen
from smoothcert.workers.runs.shard_task import Introduction, ShardReport, ShardTask, Step

LOOK_S = 5.0  # between looks at which actors are alive and how many machines there are
SILENT_S = 30.0  # an actor that does not answer for this long is lost
NO_MACHINE_S = 900.0  # an autoscaler may take this long to bring the first machine
WIND_DOWN_S = 30.0
LOST = (RayActorError, GetTimeoutError)  # the actor is dead, or silent


@dataclass(eq=False)
class Member:
    """An actor.

    Attributes:
        actor: Ray's handle.
        life: the pending answer that will show that it is alive; None if none is pending.
        asked_at: when it was last asked for one.
    """

    actor: Any
    life: Any
    asked_at: float


class Assigned(Protocol):
    """What actors work for: a run, or a study of one.

    Attributes:
        work_id: its id; it stands for `run_id` in what is reported.
        todo: the shards that it lacks.
        execution: who computes.
    """

    @property
    def work_id(self) -> str: ...
    @property
    def todo(self) -> Sequence[ShardTask]: ...
    @property
    def execution(self) -> Execution: ...
    def published(self) -> Collection[str]:
        """Names of the files that it has by now."""


PlanT = TypeVar("PlanT", bound=Assigned)


class Fleet(Generic[PlanT]):
    """The actors of one pass over the shards.

    Args:
        plans: one for each run of this pass. Their folders exist, and they share shards and execution.
        share: what one actor asks for.
        actor_class: what runs in each actor.
    """

    def __init__(
        self, plans: Sequence[PlanT], share: resources.Share, actor_class: type[ShardActor[PlanT, Any]]
    ) -> None:
        self._plans, self._share = tuple(plans), share
        self._plans_ref = ray.put(self._plans)  # plans and class are sent once, not with each actor
        remote = ray.remote(**ACTOR_OPTIONS)(actor_class)
        self._actor_class = remote.options(num_cpus=share.cpus, num_gpus=share.gpus)
        self._execution = plans[0].execution
        self._attempts = Attempts[Member](self._execution.max_attempts)
        self._members: list[Member] = []
        self._streams: dict[Any, tuple[Member, ShardTask]] = {}
        self._lacking: dict[int, set[str]] = {}  # who lacks a shard, by the shard's index
        self._looked_at = 0.0
        self._wanted = 1  # actors
        self._shared = False
        self._seen = {plan.work_id: Seen(plan.published) for plan in plans}
        self._had_machine_at = time.monotonic()

    @property
    def plans(self) -> Sequence[PlanT]:
        """Those that were not dropped."""
        return self._plans

    @property
    def execution(self) -> Execution:
        """The same in all plans."""
        return self._execution

    def drop(self, run_id: str) -> None:
        """Work no more for a run: its request is wrong, or an actor votes otherwise than the others."""
        self._plans = tuple(plan for plan in self._plans if plan.work_id != run_id)
        for lacking in self._lacking.values():
            lacking.discard(run_id)
        for member, task in self._streams.values():
            self._note_if_done(member, task)

    def work(self, tasks: Sequence[ShardTask], *, shared: bool = False) -> Iterator[Event]:
        """Do the shards in the order given. For each run that lacks one, it ends in a ShardReport, a Failure or a
        FoundPublished. An actor introduces itself before it votes for a run. Whoever hears that may drop the run.

        Args:
            tasks: the shards that are to do in any of the plans.
            shared: whether another driver may work on them too; assumed as soon as an actor finds its shard published.
        Raises:
            RequestError: an actor says that the request is wrong.
            RunError: no machine is left, and none comes.
        """
        self._lacking = {task.index: set() for task in tasks}
        for plan in self._plans:
            for task in plan.todo:
                if task.index in self._lacking:
                    self._lacking[task.index].add(plan.work_id)
        self._attempts.enqueue(tasks)
        self._shared = shared
        while not self._attempts.is_over:
            self._look()
            yield from self._hand_out()
            yield from self._hear(1.0)
            yield from self._lose_the_silent()

    def wind_down(self) -> Iterator[Event]:
        """After an interrupt: publish the shards whose images are all done; the others end after their batch."""
        self._attempts.stop()
        for member in self._attempts.busy:
            member.actor.stop.remote()
        deadline = time.monotonic() + WIND_DOWN_S
        while self._attempts.busy and time.monotonic() < deadline:
            yield from self._hear(0.5)

    # One actor

    def first_member(self) -> Member:
        """Start an actor and wait until it runs.

        Raises:
            RequestError: none can start.
            RunError: none runs after a while.
        """
        lost = 0
        while True:
            member = self._start()
            try:
                machine, member.life = ray.get(member.life, timeout=NO_MACHINE_S), None
            except GetTimeoutError:
                raise RunError(
                    f"no machine came within {NO_MACHINE_S:g} s that has {self._share.cpus:g} CPUs and "
                    f"{self._share.gpus:g} GPUs for an actor; check the cluster (`ray status`), or lower "
                    "execution.cpus_per_actor or gpus_per_actor"
                ) from None
            except RayError as error:
                lost += 1
                self.end(member)
                if lost >= self._execution.max_attempts:
                    raise cause_of(error) from None
            else:
                self._attempts.runs(member, machine)
                return member

    def answer_of(self, member: Member, answer: Any) -> Any:
        """Wait for an actor's answer, and check every few seconds that the actor is alive."""
        deadline = time.monotonic() + STALLED_S
        while not ray.wait([answer], timeout=LOOK_S)[0] and time.monotonic() < deadline:
            ray.get(member.actor.machine.remote(), timeout=SILENT_S)
        return ray.get(answer, timeout=SILENT_S)

    def machine_of(self, member: Member) -> str | None:
        """Where an actor runs."""
        return self._attempts.machine_of(member)

    def close(self) -> None:
        """End all actors: others take their place, or the work is over."""
        for member in list(self._members):
            self._kill(member)

    def end(self, member: Member) -> None:
        """End an actor that has no shards."""
        self._attempts.dismiss(member)
        self._kill(member)

    def _start(self) -> Member:
        actor = self._actor_class.remote(self._plans_ref, max(1, int(self._share.cpus)))
        member = Member(actor, actor.machine.remote(), time.monotonic())
        self._members.append(member)
        self._attempts.add(member)
        return member

    def _kill(self, member: Member) -> None:
        self._members.remove(member)
        self._streams = {stream: work for stream, work in self._streams.items() if work[0] is not member}
        self._looked_at = 0.0  # another may take its place now
        ray.kill(member.actor, no_restart=True)

    # All actors

    def _look(self) -> None:
        """Every few seconds, ask which actors are alive, and start actors if there is room."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        for member in self._members:
            if member.life is None:
                member.life, member.asked_at = member.actor.machine.remote(), now
        self._wanted = self._share.actors or self._room()
        missing = self._attempts.actors_missing(self._wanted, now)
        for _ in range(missing):
            self._start()
        for member in self._attempts.waiting()[: max(0, -missing)]:  # no machine needs to come for them
            self.end(member)

    def _room(self) -> int:
        """Room for actors, doubled if an autoscaler can bring machines."""
        room = self._share.room()
        return max(1, 2 * room) if resources.has_autoscaler() else room

    def _hand_out(self) -> Iterator[Event]:
        for member, task in self._attempts.hand_out(self._wanted, time.monotonic()):
            lacking = self._lacking[task.index]
            try:
                found = self._published(task, lacking) if self._shared else ()
                lacking.difference_update(found)
                if lacking:
                    run_ids = [plan.work_id for plan in self._plans if plan.work_id in lacking]
                    stream = member.actor.work.options(num_returns="streaming").remote(task, run_ids)
                    self._streams[stream] = (member, task)
            except BaseException:  # an interrupt, perhaps: no stream would ever end this shard
                self._attempts.take_back(member, task)
                raise
            if not lacking:
                self._attempts.take_back(member, task)
            if found:
                yield FoundPublished(task, found)

    def _published(self, task: ShardTask, lacking: Collection[str]) -> tuple[str, ...]:
        """Which of the runs have the shard by now."""
        missing = (plan for plan in self._plans if plan.work_id in lacking)
        return tuple(plan.work_id for plan in missing if self._seen[plan.work_id].has(task))

    def _hear(self, timeout_s: float) -> Iterator[Event]:
        """Yield what the actors report within the time."""
        lives = {member.life: member for member in self._members if member.life is not None}
        waiting = [*lives, *self._streams]  # ray.wait takes the first that is ready: lives go before streams
        if not waiting:
            time.sleep(timeout_s)
            return
        for ready in ray.wait(waiting, num_returns=1, timeout=timeout_s, fetch_local=False)[0]:
            if ready in self._streams:
                yield from self._hear_stream(ready)
            else:
                yield from self._hear_life(lives[ready])

    def _hear_life(self, member: Member) -> Iterator[Event]:
        life, member.life = member.life, None
        try:
            self._attempts.runs(member, ray.get(life, timeout=SILENT_S))
        except RayError as error:
            if self._attempts.machine_of(member) is None:
                cannot_start = self._attempts.cannot_start(member, str(cause_of(error)), time.monotonic())
                self._kill(member)
                yield from cannot_start
            elif not self._attempts.has_shards(member):
                self.end(member)
            elif not isinstance(error, RayActorError):  # else its streams report the death
                yield from self._lose(member, str(cause_of(error)))

    def _hear_stream(self, stream: Any) -> Iterator[Event]:
        member, task = self._streams[stream]
        try:
            item = ray.get(next(stream), timeout=SILENT_S)
        except StopIteration:
            del self._streams[stream]
            yield from self._of_runs(self._attempts.ended(member, task))
        except RayActorError as error:
            yield from self._lose(member, str(cause_of(error)))
        except RayError as error:
            yield from self._fail(stream, error)
        else:
            yield from self._hear_item(member, task, item)

    def _hear_item(self, member: Member, task: ShardTask, item: Step) -> Iterator[Event]:
        self._attempts.progressed(member, time.monotonic())
        if isinstance(item, ShardReport):
            self._lacking[task.index].discard(item.run_id)
            self._note_if_done(member, task)
            self._shared |= not item.published
        yield Beat(task, item) if isinstance(item, int) else item
        if isinstance(item, Introduction):  # it was heard, and the run may have been dropped
            accepted = any(plan.work_id == item.run_id for plan in self._plans)
            member.actor.admit.remote(item.run_id, accepted=accepted)

    def _note_if_done(self, member: Member, task: ShardTask) -> None:
        """A shard that no run lacks is done, even if its actor dies now."""
        if not self._lacking[task.index]:
            self._attempts.reported(member, task)

    def _of_runs(self, events: Iterable[Failure | Requeued | CannotStart]) -> Iterator[Event]:
        """Say which runs an event is about: those that lack the shard. If there are none, it matters no more."""
        for event in events:
            if isinstance(event, CannotStart):
                yield event
            elif lacking := self._lacking[event.task.index]:
                yield replace(event, run_ids=tuple(sorted(lacking)))

    def _fail(self, stream: Any, error: RayError) -> Iterator[Event]:
        member, task = self._streams[stream]
        cause = cause_of(error)
        if isinstance(cause, RequestError):
            raise cause from None
        on_purpose = is_ours(error)
        alive = self._alive_in_doubt(member)  # asks Ray: an interrupt here must find the stream
        del self._streams[stream]
        decision = self._attempts.failed(member, task, cause, alive, on_purpose=on_purpose)
        if member not in self._attempts.actors:
            self._kill(member)
        yield from self._of_runs(decision)

    def _lose(self, member: Member, reason: str, *, stalled: bool = False) -> Iterator[Event]:
        decision = self._attempts.lost(member, reason, self._alive_in_doubt(member), stalled=stalled)
        self._kill(member)
        yield from self._of_runs(decision)

    def _alive_in_doubt(self, member: Member) -> set[str]:
        return resources.alive_among(self._attempts.machines_in_doubt(member))

    def _lose_the_silent(self) -> Iterator[Event]:
        """Lose actors that do not answer, or do no batch."""
        now = time.monotonic()
        self._require_machine(now)
        for member in list(self._members):
            if self._is_silent(member, now):
                yield from self._lose(member, f"its actor has not answered for {SILENT_S:g} s")
        for member in self._attempts.stalled(now):
            yield from self._lose(member, f"its actor has done no batch for {STALLED_S:g} s", stalled=True)

    def _is_silent(self, member: Member, now: float) -> bool:
        if member.life is None or now - member.asked_at <= SILENT_S or self._attempts.machine_of(member) is None:
            return False
        return not ray.wait([member.life], timeout=0)[0]

    def _require_machine(self, now: float) -> None:
        if len(self._attempts.waiting()) < len(self._members):
            self._had_machine_at = now
        elif now - self._had_machine_at > NO_MACHINE_S:
            raise RunError(f"no machine has been left for {NO_MACHINE_S:g} s; run the same command again to continue")
