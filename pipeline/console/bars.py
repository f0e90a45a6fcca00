"""Bars: what is done of what there is, at which rate, and how long the rest takes.

Not covered: whose progress it is (certify/progress.py).
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from smoothcert.pipeline.console.looks import digits, say, span

Heard = Callable[[str, int, int], None]
"""Is told what is done, how much of it, and how much there is of it in all."""

_BAR_CHARACTERS = 20
_RECENT_S = 300.0  # over which a rate is taken,
_RECENT_STEPS = 20  # and over how many steps at least
_LINE_EVERY_S = 30.0  # where no bar can be drawn


class Pace:
    """How fast something goes, and when it ends: at the rate of the last minutes, from its first step on."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was before: it begins now."""
        self._steps = deque([(time.monotonic(), 0)])

    def rate(self, done: int) -> float:
        """Images a second, with so many done now."""
        now = time.monotonic()
        self._steps.append((now, done))
        while len(self._steps) > _RECENT_STEPS and self._steps[0][0] < now - _RECENT_S:
            self._steps.popleft()
        start, before = self._steps[0]
        return max(0, done - before) / max(now - start, 1e-3)


class _TimeLeft(ProgressColumn):
    """`3 min 20 s left`; counts down between two steps."""

    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        return Text("" if ends is None else f"{span(max(0.0, ends - time.monotonic()))} left")


class Bar:
    """A bar: what is done of what there is, the rate, the time left.

    Args:
        progress: that draws it.
        what: is counted, in the plural.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress, self.what, self.pace = progress, what, Pace()
        self._bar = progress.add_task("", total=None, said="", ends=None)

    def update(self, done: int, total: int | None, *, exact: bool = True) -> None:
        """Show that so many are done; the total may be unknown, or a guess."""
        rate = self.pace.rate(done)
        left = 0 if total is None else total - done
        ends = time.monotonic() + left / rate if left > 0 and rate else None
        there = "?" if total is None else f"{'' if exact else '~'}{total:,}"
        said = f"{done:,}/{there} {self.what}" + (f", {digits(rate)}/s" if rate else "")
        self._progress.update(self._bar, completed=done, total=total, said=said, ends=ends)


def bars(console: Console, *, transient: bool = False) -> Progress:
    """What draws bars; they fit a line of 80 characters."""
    columns = (BarColumn(_BAR_CHARACTERS), TextColumn("{task.fields[said]}"), _TimeLeft())
    return Progress(*columns, console=console, transient=transient)


@contextmanager
def counting(console: Console) -> Iterator[Heard]:
    """Show how far a check has come: a bar while it lasts; where there is no terminal, a line now and then."""
    if not console.is_terminal:
        yield _now_and_then(console)
        return
    with bars(console, transient=True) as progress:
        bar = Bar(progress, "")

        def hear(what: str, done: int, total: int) -> None:
            if what != bar.what:
                bar.what = what
                bar.pace.restart()
            bar.update(done, total)

        yield hear


def _now_and_then(console: Console) -> Heard:
    told = time.monotonic()

    def hear(what: str, done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() >= told + _LINE_EVERY_S:
            told = time.monotonic()
            say(console, f"{done:,} of {total:,} {what}")

    return hear
