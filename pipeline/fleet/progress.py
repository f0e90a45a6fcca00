"""Progress for people: one line a shard, and on a terminal a bar of images below them.

Not covered: how a bar looks and how the time left is estimated (console/bars.py); the log for machines (diary.py).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from rich.console import Console

from smoothcert.manifests.errors import SmoothcertError
from smoothcert.pipeline.console.bars import Bar, bars
from smoothcert.pipeline.console.looks import digits, number_of, say
from smoothcert.pipeline.fleet.events import Beat, CannotStart, Event, Failure, FoundPublished, Requeued
from smoothcert.workers.runs.shard_task import Introduction, ShardReport, ShardTask

CountImages = Callable[[ShardTask], int | None]
"""Counts the images of a shard; None if it would have to be fetched. Raises a ShardError if the shard will fail."""

_COUNT_S = 3.0  # time to count images; the rest is estimated from the sizes of the shards


class Lines:
    """Progress where there is no terminal: one line for each shard of each run.

    Args:
        console: where to print.
        total: number of these lines.
        names: of the runs by their ids, if there are several.
    """

    def __init__(self, console: Console, total: int, names: Mapping[str, str] = MappingProxyType({})) -> None:
        self._console, self._total, self._names, self._finished = console, total, names, 0

    def show(self, event: Event) -> None:
        """Print a line if a shard is done, fails or goes back to the queue, or if an actor cannot start."""
        match event:
            case ShardReport():
                self._end(f"{event.task.shard.name}: {_done(event)}", (event.run_id,))
            case FoundPublished():
                self._end(f"{event.task.shard.name}: published by another driver", event.run_ids)
            case Failure():
                self._end(f"failed: {event.reason}", event.run_ids)
            case Requeued():
                self.say(f"again: {event.task.shard.name}: {event.reason}")
            case CannotStart():
                self.say(f"notice: {event.reason}; the run goes on with the other actors and tries again")

    def leave_out(self, shards: int) -> None:
        """A run is given up before so many of its shards have ended."""
        self._total -= shards

    def _end(self, line: str, run_ids: Sequence[str]) -> None:
        self._finished += len(run_ids)
        names = ", ".join(self._names[run_id] for run_id in run_ids if run_id in self._names)
        self.say(f"[{self._finished}/{self._total}] {f'{names}: ' if names else ''}{line}")

    def say(self, line: str) -> None:
        """Print a line."""
        say(self._console, line)


def _done(report: ShardReport) -> str:
    if report.adopted_from is not None:
        return f"{number_of(report.rows, 'image')}, taken over from run {report.adopted_from}"
    errors = report.rows - report.statuses.get("ok", 0)
    rate = digits(report.rows / max(report.turn_s, 1e-9))
    return f"{number_of(report.rows, 'image')}, {number_of(errors, 'error')}, {rate} images/s"


class _ShardBar(Lines):
    """Progress on a terminal: a bar of images below the lines of the shards."""

    def __init__(self, console: Console, total: int, names: Mapping[str, str], bar: Bar, expected: "_Expected") -> None:
        super().__init__(console, total, names)
        self._bar, self._expected, self._loaded = bar, expected, False
        self._images: Counter[int] = Counter()
        self._update()

    def show(self, event: Event) -> None:
        match event:
            case Introduction() if not self._loaded:
                self._loaded = True
                self._bar.pace.restart()  # otherwise loading the model would count as slow work
            case Beat():
                self._images[event.task.index] = event.images
            case ShardReport():
                self._images[event.task.index] = event.rows
                self._expected.finish(event.task, event.rows)
            case Requeued():
                self._images[event.task.index] = 0
            case Failure() | FoundPublished():
                self._images[event.task.index] = 0
                self._expected.finish(event.task, 0)
        self._update()
        super().show(event)

    def _update(self) -> None:
        self._bar.update(self._images.total(), self._expected.images(), exact=self._expected.is_exact)


class _Expected:
    """How many images there will be. Uncounted shards are assumed to hold as many images per byte as the others.

    Args:
        todo: the shards.
        counted: number of images of some of them, by index.
    """

    def __init__(self, todo: Sequence[ShardTask], counted: Mapping[int, int]) -> None:
        self._counted, self._finished = counted, set[int]()
        self._known = sum(counted.values())
        self._bytes_unknown = sum(task.shard.size for task in todo if task.index not in counted)
        whole = [task for task in todo if counted.get(task.index) and task.limit is None]
        self._rows, self._bytes = sum(counted[task.index] for task in whole), sum(task.shard.size for task in whole)

    def finish(self, task: ShardTask, rows: int) -> None:
        """A shard is done in a run, perhaps not the first one: its number of rows is known now."""
        if task.index in self._finished:
            return
        self._finished.add(task.index)
        if task.index in self._counted:
            self._known += rows - self._counted[task.index]
            return
        self._known += rows
        self._bytes_unknown -= task.shard.size
        self._rows, self._bytes = self._rows + rows, self._bytes + (task.shard.size if rows else 0)

    @property
    def is_exact(self) -> bool:
        return not self._bytes_unknown

    def images(self) -> int | None:
        if self.is_exact:
            return self._known
        return self._known + self._bytes_unknown * self._rows // self._bytes if self._bytes else None


def _count(todo: Sequence[ShardTask], count: CountImages) -> dict[int, int]:
    """Count the images of the shards, by index, for up to `_COUNT_S`."""
    counted, deadline = dict[int, int](), time.monotonic() + _COUNT_S
    for task in todo:
        try:
            images = count(task) if time.monotonic() < deadline else task.known_images
        except SmoothcertError:
            images = 0  # the shard will fail
        if images is not None:
            counted[task.index] = images
    return counted


@contextmanager
def progress_of(
    console: Console,
    todo: Sequence[ShardTask],
    count: CountImages,
    *,
    total: int | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Lines]:
    """Show the events of these shards while the context lasts.

    Args:
        console: where to print.
        todo: the shards, each once.
        count: counts the images of a shard.
        total: number of shards of all runs together; None: of one run.
        names: of the runs by their ids, if there are several.
    """
    total = len(todo) if total is None else total
    if not console.is_terminal:
        yield Lines(console, total, names)
        return
    expected = _Expected(todo, _count(todo, count))
    with bars(console) as progress:
        yield _ShardBar(console, total, names, Bar(progress, "images"), expected)
