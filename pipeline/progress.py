"""Progress for people: a bar on a terminal, else a line a shard."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.events import Beat, Event, Failure, FoundPublished, Requeued
from workers.shard_task import ShardReport, ShardTask


class Lines:
    """Progress where there is no terminal: one line a shard."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._finished = console, total, 0

    def show(self, event: Event) -> None:
        """Print a line where a shard is done, given up or goes back."""
        match event:
            case ShardReport():
                errors = event.rows - event.statuses.get("ok", 0)
                rate = event.rows / max(event.turn_s, 1e-9)
                self._end(f"{event.task.shard.name}: {event.rows} images, {errors} errors, {rate:.1f} images/s")
            case FoundPublished():
                self._end(f"{event.task.shard.name}: published by another driver")
            case Failure():
                self._end(f"failed: {event.reason}")
            case Requeued():
                self.say(f"again: {event.task.shard.name}: {event.reason}")

    def _end(self, line: str) -> None:
        self._finished += 1
        self.say(f"[{self._finished}/{self._total}] {line}")

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line)


class _Bar(Lines):
    """Progress on a terminal: images done, rate, time left; the shards' lines above it."""

    def __init__(self, console: Console, progress: Progress, todo: Sequence[ShardTask]) -> None:
        super().__init__(console, len(todo))
        self._progress, self._expected = progress, _Expected(todo)
        self._bar = progress.add_task("certify", total=self._expected.images(), rate="")
        self._images: Counter[int] = Counter()
        self._start = time.monotonic()

    def show(self, event: Event) -> None:
        match event:
            case Beat():
                self._advance(event.task.index, event.images)
            case ShardReport():
                self._advance(event.task.index, event.rows)
                self._expected.has(event.task, event.rows)
            case Requeued():
                self._advance(event.task.index, 0)
            case Failure() | FoundPublished():
                self._advance(event.task.index, 0)
                self._expected.has(event.task, 0)
        self._progress.update(self._bar, total=self._expected.images())
        super().show(event)

    def _advance(self, shard: int, images: int) -> None:
        more, self._images[shard] = images - self._images[shard], images
        self._progress.advance(self._bar, more)
        done = self._progress.tasks[self._bar].completed
        rate = done / max(time.monotonic() - self._start, 1e-3)
        self._progress.update(self._bar, rate=f"{rate:.1f} images/s")


class _Expected:
    """How many images there will be: some shards say so, the others are reckoned by their bytes."""

    def __init__(self, todo: Sequence[ShardTask]) -> None:
        self._known = sum(_told(task) or 0 for task in todo)
        self._bytes_unknown = sum(task.shard.size for task in todo if _told(task) is None)
        self._rows = self._bytes = 0

    def has(self, task: ShardTask, rows: int) -> None:
        """A shard is done: no guess any more."""
        if _told(task) is None:
            self._bytes_unknown -= task.shard.size
        self._known += rows - (_told(task) or 0)
        self._rows, self._bytes = self._rows + rows, self._bytes + (task.shard.size if rows else 0)

    def images(self) -> int | None:
        if not self._bytes_unknown:
            return self._known
        return self._known + self._bytes_unknown * self._rows // self._bytes if self._bytes else None


def _told(task: ShardTask) -> int | None:
    return task.limit if task.limit is not None else task.shard.images


@contextmanager
def progress_of(console: Console, todo: Sequence[ShardTask]) -> Iterator[Lines]:
    """What shows the events of the shards to do, for as long as the context lasts."""
    if not console.is_terminal:
        yield Lines(console, len(todo))
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bar(console, progress, todo)
