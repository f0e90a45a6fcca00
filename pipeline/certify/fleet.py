"""Ray actors that certify shards: started, tried out, fed, replaced when they are lost.

Each actor holds a loaded model. A shard's work is a stream: a number of images after every batch, the report at the
end. The driver waits on all streams at once, and asks each actor now and then whether it is alive: Ray alone notices
a machine that falls silent only after minutes.

    what happens                              what it costs the shard
    an error of the shard itself              it fails at once, the actor goes on
    any other error                           an attempt; it goes back to the queue, the actor is replaced
    the actor dies, its machine lives on      an attempt, the same
    the machine dies, is drained or silent    nothing, the same
    no batch is done for a long time          an attempt, the actor is ended

An actor has two shards: one is fetched and decoded, or published, while the votes of the other are computed. If it dies
with both, neither is charged an attempt, for nobody knows whose fault it was; each then goes on alone.

After `max_attempts` a shard is given up, so that one which kills every actor does not kill the run. The next attempt
is another machine's where there is one, so that a bad machine alone cannot use them up. Actors are started as machines
join, up to what the job asks for.

Not covered: what the cluster has (cluster.py), which shards there are (plan.py), whether all actors vote alike
(alike.py), what the user sees (certify_all.py).
"""

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from smoothcert.manifests.errors import RequestError, RunError, ShardError, SmoothcertError
from smoothcert.pipeline.certify.canary import Canary
from smoothcert.pipeline.certify.events import Beat, Event, Failure, FoundPublished, Requeued
from smoothcert.pipeline.certify.plan import Plan
from smoothcert.pipeline.cluster import resources
from smoothcert.pipeline.cluster.ray_errors import cause_of
from smoothcert.workers.runs.shard_task import Introduction, ShardReport, ShardTask, TriedOut

if TYPE_CHECKING:
    from smoothcert.workers.certifier import Certifier

CANARY_IMAGES = 32
LOOK_S = 5.0  # between looks at who is alive and how many machines there are
SILENT_S = 30.0  # an actor that does not answer for so long is lost
STALLED_S = 1800.0  # so long may the first batch of a shard take, download and loading included
NO_MACHINE_S = 900.0  # so long may an autoscaler take to bring the first machine
_WIND_DOWN_S = 30.0

_LOST = (RayActorError, GetTimeoutError)  # dead, or silent
_AT_ONCE = 2  # shards of an actor
_NEXT = 100  # shards at the head of the queue of which an actor is given one
_OF_AN_ACTOR: dict[str, Any] = {"concurrency_groups": {"life": 1, "shards": _AT_ONCE}, "max_restarts": 0}


class Worker:
    """A Certifier in a process of its own."""

    def __init__(self, plan: Plan, threads: int) -> None:
        self._plan, self._threads = plan, threads
        self._admitted = threading.Event()
        self._stopping = threading.Event()
        self._loading = threading.Lock()
        self._loaded: Certifier | None = None  # by the first task: Ray keeps a task's exception, not a constructor's

    def _certifier(self) -> "Certifier":
        with self._loading:
            if self._loaded is None:
                if not ray.get_gpu_ids():  # Ray hides no GPU from an actor that asks for none
                    os.environ["CUDA_VISIBLE_DEVICES"] = ""
                self._loaded = self._plan.certifier(self._threads)
            return self._loaded

    @ray.method(concurrency_group="life")  # type: ignore[untyped-decorator]
    def node(self) -> str:
        """The machine that this runs on; answers while a shard is computed."""
        return str(ray.get_runtime_context().get_node_id())

    @ray.method(concurrency_group="life")  # type: ignore[untyped-decorator]
    def admit(self) -> None:
        """Go on after the introduction: it votes as the others do."""
        self._admitted.set()

    @ray.method(concurrency_group="life")  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """End each shard after its batch, unless all its images are done."""
        self._stopping.set()

    def try_out(self, task: ShardTask) -> TriedOut:
        return self._certifier().try_out(task, CANARY_IMAGES)

    @ray.method(concurrency_group="shards")  # type: ignore[untyped-decorator]
    def certify(self, task: ShardTask) -> Iterator[Introduction | int | ShardReport]:
        certifier = self._certifier()
        if not self._admitted.is_set():
            yield certifier.introduce()
            self._admitted.wait()  # or it would publish while the driver still compares
        with closing(certifier.certify(task)) as steps:
            for step in steps:
                yield step
                if self._stopping.is_set():
                    return


@dataclass(eq=False)
class _Work:
    """A shard at an actor, whose stream it is; `reported` once the report has come."""

    task: ShardTask
    stream: Any
    reported: bool = False


@dataclass(eq=False)
class _Member:
    """An actor and what it does.

    Attributes:
        life: the answer to `node` that is waited for, asked at `asked`.
        node: its machine, once it runs.
        works: its shards.
        beat: when it last got on with one of them.
    """

    actor: Any
    life: Any
    asked: float
    node: str | None = None
    works: list[_Work] = field(default_factory=list)
    beat: float = 0.0


@dataclass
class _Record:
    """What a shard has cost: the machines of its errors and stalls, and those on which its actor was lost.

    Attributes:
        alone: it was on an actor that was lost, and shares none any more.
    """

    alone: bool = False
    failed_on: list[str | None] = field(default_factory=list)
    lost_on: list[str | None] = field(default_factory=list)

    def attempts(self, alive: set[str]) -> int:
        """A loss counts if the machine lives on."""
        return len(self.failed_on) + sum(node in alive for node in self.lost_on)

    def machines(self) -> set[str | None]:
        return {*self.failed_on, *self.lost_on}


class Fleet:
    """The actors of one run.

    Args:
        plan: of the run, whose run.json is written.
        share: what one actor asks for.
    """

    def __init__(self, plan: Plan, share: resources.Share) -> None:
        self._plan, self._share = plan, share
        self._plan_there = ray.put(plan)  # plan and class once, not with each actor
        self._worker = ray.remote(**_OF_AN_ACTOR)(Worker).options(num_cpus=share.cpus, num_gpus=share.gpus)
        self._queue: deque[ShardTask] = deque()
        self._records: defaultdict[int, _Record] = defaultdict(_Record)
        self._members: list[_Member] = []
        self._looked = 0.0
        self._wanted = 1  # actors
        self._shared = False
        self._had_machine = time.monotonic()

    def try_out(self, tasks: Sequence[ShardTask]) -> tuple[str, ...]:
        """Vote on a few images before the fleet starts, and publish nothing.

        Returns:
            What the user should know of the job, a line each.
        Raises:
            RequestError: the model cannot be loaded, no actor can start, or nearly all labels are wrong.
            RunError: nearly none of the images can be voted on, or no machine came to do it.
        """
        member, lost = self._first_member(), 0
        canary, notices = Canary(self._plan.job), tuple[str, ...]()
        todo = {task.index for task in tasks}
        for task in sorted(self._plan.tasks, key=lambda task: (task.index not in todo, task.shard.size)):
            # The last shards of a run may be odd ones: a fault must hold for published shards, too.
            if task.index not in todo and canary.fault() is None:
                break
            try:
                tried: TriedOut = _answer(member, member.actor.try_out.remote(task))
            except RayError as error:
                cause = cause_of(error)
                if isinstance(cause, ShardError):
                    continue  # it will be named when its turn comes
                lost += bool(resources.alive_among([member.node]))  # a machine's end is not the model's fault
                if not isinstance(error, _LOST) or lost >= self._plan.job.execution.max_attempts:
                    raise cause from None
                self._members.remove(member)  # by this shard, or with its machine: another may fare better
                ray.kill(member.actor, no_restart=True)
                member = self._first_member()
                continue
            canary.add(task, tried)
            notices = tried.notices
            if canary.is_sure:
                break
        if fault := canary.fault():
            raise fault
        return notices

    def certify(self, tasks: Sequence[ShardTask], *, shared: bool = False) -> Iterator[Event]:
        """Do the shards in the order given, as actors come free; each ends in a report, a failure or found published.

        An actor introduces itself before its first shard.

        Args:
            tasks: the shards.
            shared: whether another driver may work on them, too; one that is met on the way is noticed.
        Raises:
            RequestError: an actor says that the request is wrong.
            RunError: no machine is left, and none comes.
        """
        self._queue.extend(tasks)
        self._shared = shared
        while self._queue or self._busy():
            self._look()
            yield from self._hand_out()
            yield from self._hear(1.0)
            yield from self._give_up_the_silent()

    def wind_down(self) -> Iterator[Event]:
        """After an interrupt: shards of which all images are done get published, the others end after their batch."""
        self._queue.clear()
        for member in self._busy():
            member.actor.stop.remote()
        deadline = time.monotonic() + _WIND_DOWN_S
        while self._busy() and time.monotonic() < deadline:
            yield from (event for event in self._hear(0.5) if not isinstance(event, Requeued))

    def _busy(self) -> list[_Member]:
        return [member for member in self._members if member.works]

    def _first_member(self) -> _Member:
        """An actor that runs.

        Raises:
            RequestError: none can start.
            RunError: none runs after a while.
        """
        lost = 0
        while True:
            self._start()
            member = self._members[-1]
            try:
                member.node, member.life = ray.get(member.life, timeout=NO_MACHINE_S), None
                return member
            except GetTimeoutError:
                raise RunError(
                    f"no machine came within {NO_MACHINE_S:g} s that has {self._share.cpus:g} CPUs and "
                    f"{self._share.gpus:g} GPUs for an actor; check the cluster (`ray status`), or lower "
                    "execution.cpus_per_actor or gpus_per_actor"
                ) from None
            except RayError as error:
                lost += 1
                self._members.remove(member)
                if lost >= self._plan.job.execution.max_attempts:
                    raise cause_of(error) from None

    def _start(self) -> None:
        actor = self._worker.remote(self._plan_there, max(1, int(self._share.cpus)))
        self._members.append(_Member(actor, actor.node.remote(), time.monotonic()))

    def _look(self) -> None:
        """Now and then: ask who is alive, and start actors where there is room for them."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        for member in self._members:
            if member.life is None:
                member.life, member.asked = member.actor.node.remote(), now
        self._wanted = self._share.actors or self._room()
        missing = min(self._wanted, len(self._queue) + len(self._busy())) - len(self._members)
        for _ in range(missing):
            self._start()
        waiting = [member for member in self._members if member.node is None]
        for member in waiting[: max(0, -missing)]:  # no machine shall come for them
            self._end(member)

    def _room(self) -> int:
        """Room for actors; where an autoscaler can bring machines, as many again are asked for."""
        room = self._share.room()
        return max(1, 2 * room) if resources.has_autoscaler() else room

    def _hand_out(self) -> Iterator[Event]:
        for count in range(1, _AT_ONCE + 1):
            for member in self._members:
                while member.node is not None and len(member.works) < count and (task := self._take(member)):
                    if self._shared and self._plan.run.is_published(task):
                        yield FoundPublished(task)
                        continue
                    stream = member.actor.certify.options(num_returns="streaming").remote(task)
                    member.beat = member.beat if member.works else time.monotonic()
                    member.works.append(_Work(task, stream))

    def _take(self, member: _Member) -> ShardTask | None:
        """The next shard for an actor: a second one only if there are enough for all."""
        if member.works and (len(self._queue) <= self._wanted or self._alone(member.works[0].task)):
            return None
        for task in islice(self._queue, _NEXT):  # each of them some actor may take
            if not (member.works and self._alone(task)) and self._may_try(member, task):
                self._queue.remove(task)
                return task
        return None

    def _alone(self, task: ShardTask) -> bool:
        return task.index in self._records and self._records[task.index].alone

    def _may_try(self, member: _Member, task: ShardTask) -> bool:
        """Whether it has not failed on this machine, or has on all."""
        if task.index not in self._records:
            return True
        tried = self._records[task.index].machines()
        return member.node not in tried or all(other.node in tried for other in self._members if other.node)

    def _hear(self, timeout_s: float) -> Iterator[Event]:
        """What actors have to say within the time."""
        streams = {work.stream: (member, work) for member in self._members for work in member.works}
        lives = {member.life: member for member in self._members if member.life is not None}
        waiting = [*lives, *streams]  # the first that is ready is heard: a life must not wait behind busy streams
        if not waiting:
            time.sleep(timeout_s)
            return
        for ready in ray.wait(waiting, num_returns=1, timeout=timeout_s, fetch_local=False)[0]:
            if ready in streams:
                yield from self._hear_stream(*streams[ready])
            else:
                yield from self._hear_life(lives[ready])

    def _hear_life(self, member: _Member) -> Iterator[Event]:
        life, member.life = member.life, None
        try:
            member.node = ray.get(life, timeout=SILENT_S)
        except RayError as error:
            if not member.works:  # else its streams tell
                self._members.remove(member)
            elif not isinstance(error, RayActorError):
                yield from self._lose(member, str(cause_of(error)))

    def _hear_stream(self, member: _Member, work: _Work) -> Iterator[Event]:
        try:
            item = ray.get(next(work.stream), timeout=SILENT_S)
        except StopIteration:
            member.works.remove(work)
            if not work.reported:
                yield from self._again(work.task, "it was stopped")
        except RayActorError as error:
            yield from self._lose(member, str(cause_of(error)))
        except RayError as error:
            yield from self._failed_attempt(member, work, error)
        else:
            member.beat, work.reported = time.monotonic(), isinstance(item, ShardReport)
            self._shared |= isinstance(item, ShardReport) and not item.published
            yield Beat(work.task, item) if isinstance(item, int) else item
            if isinstance(item, Introduction):
                member.actor.admit.remote()  # who heard it has not objected

    def _failed_attempt(self, member: _Member, work: _Work, error: RayError) -> Iterator[Event]:
        cause = cause_of(error)
        member.works.remove(work)
        if isinstance(cause, RequestError):
            raise cause from None
        if isinstance(cause, ShardError):
            yield Failure(work.task, str(cause))
            return
        self._records[work.task.index].failed_on.append(member.node)
        yield from self._again(work.task, str(cause))
        if not (isinstance(error, RayTaskError) and isinstance(error.cause, SmoothcertError)):
            # Nobody foresaw it, so its process may be broken, as CUDA errors leave it: every shard there would fail.
            self._end(member)
            for other in member.works:
                if not other.reported:
                    yield from self._again(other.task, f"its actor was replaced after an error: {cause}")

    def _give_up_the_silent(self) -> Iterator[Event]:
        """Lose actors that do not answer, or do not get on."""
        now = time.monotonic()
        if any(member.node is not None for member in self._members):
            self._had_machine = now
        elif now - self._had_machine > NO_MACHINE_S:
            raise RunError(f"no machine has been left for {NO_MACHINE_S:g} s; run the same command again to continue")
        for member in list(self._members):
            unheard = member.life is not None and now - member.asked > SILENT_S
            if member.node is not None and unheard and not ray.wait([member.life], timeout=0)[0]:
                yield from self._lose(member, f"its actor has not answered for {SILENT_S:g} s")
            elif member.works and now - member.beat > STALLED_S:
                yield from self._lose(member, f"its actor has done no batch for {STALLED_S:g} s", stalled=True)

    def _lose(self, member: _Member, reason: str, *, stalled: bool = False) -> Iterator[Event]:
        """An actor is gone, or as good as gone: what it publishes yet is harmless. A stall is not its machine's end."""
        self._end(member)
        for work in member.works:
            record = self._records[work.task.index]
            record.alone = True
            if len(member.works) == 1:
                (record.failed_on if stalled else record.lost_on).append(member.node)
            if not work.reported:
                yield from self._again(work.task, reason)

    def _end(self, member: _Member) -> None:
        self._members.remove(member)
        self._looked = 0.0  # another may take its place now
        ray.kill(member.actor, no_restart=True)

    def _again(self, task: ShardTask, reason: str) -> Iterator[Event]:
        record = self._records[task.index]
        attempts = record.attempts(resources.alive_among(record.lost_on))
        if attempts >= self._plan.job.execution.max_attempts:
            yield Failure(task, f"shard {task.shard.name}: given up after {attempts} attempts, the last: {reason}")
        else:
            self._queue.append(task)
            yield Requeued(task, reason)


def _answer(member: _Member, answer: Any) -> Any:
    """What an actor answers; it is asked now and then whether it is alive."""
    deadline = time.monotonic() + STALLED_S
    while not ray.wait([answer], timeout=LOOK_S)[0] and time.monotonic() < deadline:
        ray.get(member.actor.node.remote(), timeout=SILENT_S)
    return ray.get(answer, timeout=SILENT_S)
