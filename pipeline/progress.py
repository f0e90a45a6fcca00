"""Progress for people: a bar on a terminal, else a line a shard."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from manifests.errors import RunError
from pipeline.events import Beat, Event, Failure, FoundPublished, Requeued
from pipeline.plan import Plan, count_images
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
        self._console.print(line, markup=False)


class _Bar(Lines):
    """Progress on a terminal: images done, rate, time left; the shards' lines above it."""

    def __init__(self, console: Console, total: int, progress: Progress, images: int) -> None:
        super().__init__(console, total)
        self._progress = progress
        self._bar = progress.add_task("certify", total=images or None, rate="")
        self._images: Counter[int] = Counter()
        self._start = time.monotonic()

    def show(self, event: Event) -> None:
        match event:
            case Beat():
                self._advance(event.task.index, event.images)
            case ShardReport():
                self._advance(event.task.index, event.rows)
            case Requeued():
                self._advance(event.task.index, 0)
        super().show(event)

    def _advance(self, shard: int, images: int) -> None:
        more, self._images[shard] = images - self._images[shard], images
        self._progress.advance(self._bar, more)
        done = self._progress.tasks[self._bar].completed
        rate = done / max(time.monotonic() - self._start, 1e-3)
        self._progress.update(self._bar, rate=f"{rate:.1f} images/s")


@contextmanager
def progress_of(console: Console, plan: Plan, todo: Sequence[ShardTask]) -> Iterator[Lines]:
    """What shows the events of the shards to do, for as long as the context lasts."""
    if not console.is_terminal:
        yield Lines(console, len(todo))
        return
    images = 0
    for task in todo:
        with suppress(RunError, OSError):  # it will fail when its turn comes
            images += count_images(task, plan) or 0
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bar(console, len(todo), progress, images)
