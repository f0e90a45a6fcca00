"""One pass over the shards of one run or several: tried out, handed out, listened to, written down.

A run that fails leaves the pass, and the others go on. Models that do not fit one actor together take turns: a pass for
each turn.

Not covered: which actor does what (fleet.py); what a run is worth afterwards (conclusion.py).
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from smoothcert.manifests.errors import RequestError, SmoothcertError
from smoothcert.pipeline.certify.alike import Alike
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.image_counts import count_images
from smoothcert.pipeline.certify.options import NO_OPTIONS, Options
from smoothcert.pipeline.certify.outcome import Work
from smoothcert.pipeline.certify.plan import Plan
from smoothcert.pipeline.certify.turns import turns_in_words, turns_of
from smoothcert.pipeline.console.looks import number_of, say
from smoothcert.pipeline.fleet.events import Event, Failure, FoundPublished, Requeued
from smoothcert.pipeline.fleet.progress import Lines, progress_of
from smoothcert.pipeline.overview.status import FailedShard
from smoothcert.workers.runs.environment import environment_of
from smoothcert.workers.runs.published import read_metadata
from smoothcert.workers.runs.shard_task import Introduction, Refusal, ShardReport

if TYPE_CHECKING:  # they load ray, which takes a second; a finished run needs none
    from smoothcert.pipeline.certify.diary import Diary
    from smoothcert.pipeline.certify.tryout import Scout
    from smoothcert.pipeline.fleet.fleet import Fleet


@dataclass
class Entry:
    """A run of a pass.

    Attributes:
        plan: of the run.
        name: of its entry in the suite; empty for a job.
        alike: compares the actors that vote for it.
        begins: whether it begins now, so that no other driver can be at work on it.
        diary: what was done for it; None if there was nothing to do.
        fault: why it left the pass.
    """

    plan: Plan
    name: str
    alike: Alike
    begins: bool
    diary: "Diary | None" = None
    fault: SmoothcertError | None = None

    @property
    def run_id(self) -> str:
        return self.plan.run.run_id

    @property
    def work(self) -> Work:
        """What this driver did for it."""
        return Work() if self.diary is None else self.diary.work()

    @property
    def failures(self) -> list[FailedShard]:
        """The shards that failed."""
        return [] if self.diary is None else self.diary.failures


def enter(plan: Plan, options: Options = NO_OPTIONS, name: str = "") -> Entry:
    """Begin a run, unless it is finished.

    Args:
        plan: of the run.
        options: how it is certified.
        name: of its entry in the suite.
    Raises:
        RequestError: the storage does not refuse to overwrite, or the published files differ already.
        RunError: a published file is damaged.
    """
    strict = options.strict_versions
    finished = not plan.todo and plan.run.success() is not None
    begins = not finished and begin(plan, unsafe_overwrite=options.unsafe_overwrite)  # a finished run is only read
    published = {environment_of(file.environment) for file in read_metadata(plan.run)} if strict else ()
    return Entry(plan, name, Alike(plan.run, plan.job.model.dtype, strict=strict, published=published), begins)


def certify_missing(entries: Sequence[Entry], console: Console) -> None:
    """Certify the shards that the runs lack. Afterwards each entry has its diary and, if it left the pass, its fault.

    Args:
        entries: with the same tars, execution and storage.
        console: where to say how it goes.
    Raises:
        RequestError, RunError: no run can go on.
    """
    from smoothcert.pipeline.certify.actor import CertifierActor
    from smoothcert.pipeline.certify.tryout import Scout
    from smoothcert.pipeline.cluster.connection import connect
    from smoothcert.pipeline.cluster.resources import share_of
    from smoothcert.pipeline.fleet.fleet import Fleet

    for entry in entries:
        todo, shards = len(entry.plan.todo), number_of(len(entry.plan.tasks), "shard")
        say(console, f"{_named(entry)}run {entry.run_id}: {todo:,} of {shards} to do")
    connect(partial(say, console))
    share = share_of(entries[0].plan.job.execution)
    fleet = Fleet([entry.plan for entry in entries], share, CertifierActor)
    try:
        scout = Scout(fleet)
        turns = _turns(entries, scout, share.gpus, console)
        for number, turn in enumerate(turns, start=1):
            if len(turns) > 1:
                fleet.close()
                fleet = Fleet([entry.plan for entry in turn], share, CertifierActor)
                scout = Scout(fleet)
                say(console, f"turn {number} of {len(turns)}: {', '.join(entry.name for entry in turn)}")
            _make_turn(fleet, scout, turn, console)
    finally:
        fleet.close()


def _turns(entries: Sequence[Entry], scout: "Scout", gpus: float, console: Console) -> list[list[Entry]]:
    """The entries whose models vote together."""
    if len(entries) == 1:
        return [list(entries)]
    memory = entries[0].plan.job.execution.memory_bytes or scout.memory_bytes(gpus)
    weights = {entry.name: entry.plan.checkpoint_bytes for entry in entries}
    turns = turns_of(weights, memory)
    for line in turns_in_words(turns, weights, memory):
        say(console, line)
    by_name = {entry.name: entry for entry in entries}
    return [[by_name[name] for name in turn] for turn in turns]


def _make_turn(fleet: "Fleet[Plan]", scout: "Scout", entries: Sequence[Entry], console: Console) -> None:
    for entry in entries:
        try:
            for notice in _try_out(scout, entry):
                say(console, f"notice: {_named(entry)}{notice}")
        except SmoothcertError as error:
            _give_up(entry, error, fleet, partial(say, console))
    if remaining := [entry for entry in entries if entry.fault is None]:
        _listen(fleet, remaining, console)


def _try_out(scout: "Scout", entry: Entry) -> tuple[str, ...]:
    from smoothcert.pipeline.certify.tryout import try_out

    return try_out(scout, entry.plan)


def _listen(fleet: "Fleet[Plan]", entries: Sequence[Entry], console: Console) -> None:
    """Hand out the shards, and hear of each until all are done."""
    from smoothcert.pipeline.certify.diary import Diary

    todo = list({task.index: task for entry in entries for task in entry.plan.todo}.values())
    todo.sort(key=lambda task: -task.shard.size)
    shared = not all(entry.begins for entry in entries)
    if shared:  # another driver may be doing them by size, so take another order
        random.shuffle(todo)
    for entry in entries:
        entry.diary = Diary(entry.plan.run)
    names = {entry.run_id: entry.name for entry in entries if entry.name}
    total = sum(len(entry.plan.todo) for entry in entries)
    count = partial(count_images, plan=entries[0].plan)
    with progress_of(console, todo, count, total=total, names=names) as progress:
        listener = _Listener(fleet, {entry.run_id: entry for entry in entries}, progress)
        try:
            listener.hear(fleet.work(todo, shared=shared))
        except KeyboardInterrupt:
            progress.say("interrupted: shards of which all images are done are still being published")
            listener.hear(fleet.wind_down())
            raise
        finally:
            for entry in entries:
                _publish_diary(entry, progress)


class _Listener:
    """Hears what happens to the shards, and passes it on.

    Args:
        fleet: it works no more for a run that is given up.
        entries: by run id.
        progress: shows what happens.
    """

    def __init__(self, fleet: "Fleet[Plan]", entries: dict[str, Entry], progress: Lines) -> None:
        self._fleet, self._entries, self._progress = fleet, entries, progress
        self._left = {run_id: len(entry.plan.todo) for run_id, entry in entries.items()}

    def hear(self, events: Iterable[Event]) -> None:
        """Until there are no more events, or no run is left."""
        for event in events:
            self._hear(event)
            if not self._fleet.plans:
                return

    def _hear(self, event: Event) -> None:
        match event:
            case Introduction():
                try:
                    self._entries[event.run_id].alike.check(event)
                except SmoothcertError as error:
                    self._give_up(event.run_id, error)
            case Refusal():
                self._give_up(event.run_id, RequestError(event.reason))
            case ShardReport():
                self._note([event.run_id], event, ends=True)
            case FoundPublished() | Failure():
                self._note(event.run_ids, event, ends=True)
            case Requeued():
                self._note(event.run_ids, event, ends=False)
        if not (isinstance(event, ShardReport) and self._entries[event.run_id].fault):  # it counts no more
            self._progress.show(event)

    def _note(self, run_ids: Sequence[str], event: Event, *, ends: bool) -> None:
        for run_id in run_ids:
            self._left[run_id] -= ends
            if diary := self._entries[run_id].diary:
                diary.write(event)

    def _give_up(self, run_id: str, error: SmoothcertError) -> None:
        entry = self._entries[run_id]
        if entry.fault is None:
            self._progress.leave_out(self._left[run_id])
            _give_up(entry, error, self._fleet, self._progress.say)


def _give_up(entry: Entry, error: SmoothcertError, fleet: "Fleet[Plan]", tell: Callable[[str], None]) -> None:
    """A run leaves the pass. The fault of a job's only run is raised in the end, so it is not told here."""
    entry.fault = error
    fleet.drop(entry.run_id)
    if entry.name:
        tell(f"failed: {entry.name}: {error}")


def _publish_diary(entry: Entry, progress: Lines) -> None:
    try:
        if entry.diary is not None:
            entry.diary.publish()
    except SmoothcertError as error:  # the diary is a log: it must not hide an interrupt or end the run
        progress.say(f"notice: what this driver did is not published: {error}")


def _named(entry: Entry) -> str:
    return f"{entry.name}: " if entry.name else ""
