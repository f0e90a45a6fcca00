"""Progress bars: how much is done, at which rate, and how long the rest takes.

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

OnProgress = Callable[[str, int, int], None]
"""Takes what is counted, how much of it is done, and how much there is."""

_BAR_CHARACTERS = 20
_RECENT_S = 300.0  # a rate is the mean over this time,
_RECENT_STEPS = 20  # and over at least this many steps
_LINE_EVERY_S = 30.0  # where there is no terminal


class Pace:
    """How fast something goes: its rate of the last minutes."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget all steps: it begins now."""
        self._steps = deque([(time.monotonic(), 0)])

    def rate(self, done: int) -> float:
        """The recent rate per second, given the number done now."""
        now = time.monotonic()
        self._steps.append((now, done))
        while len(self._steps) > _RECENT_STEPS and self._steps[0][0] < now - _RECENT_S:
            self._steps.popleft()
        start, before = self._steps[0]
        return max(0, done - before) / max(now - start, 1e-3)


class _TimeLeft(ProgressColumn):
    """`3 min 20 s left`, counting down between two steps."""

    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        return Text("" if ends is None else f"{span(max(0.0, ends - time.monotonic()))} left")


class Bar:
    """A bar with the number done, the total, the rate and the time left.

    Args:
        progress: draws it.
        what: what is counted, in the plural.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress, self.what, self.pace = progress, what, Pace()
        self._bar = progress.add_task("", total=None, text="", ends=None)

    def update(self, done: int, total: int | None, *, exact: bool = True) -> None:
        """Show the number done. The total may be unknown (None) or an estimate (not exact)."""
        rate = self.pace.rate(done)
        left = 0 if total is None else total - done
        ends = time.monotonic() + left / rate if left > 0 and rate else None
        shown_total = "?" if total is None else f"{'' if exact else '~'}{total:,}"
        text = f"{done:,}/{shown_total} {self.what}" + (f", {digits(rate)}/s" if rate else "")
        self._progress.update(self._bar, completed=done, total=total, text=text, ends=ends)


def bars(console: Console, *, transient: bool = False) -> Progress:
    """An empty display for bars, which fit a line of 80 characters."""
    columns = (BarColumn(_BAR_CHARACTERS), TextColumn("{task.fields[text]}"), _TimeLeft())
    return Progress(*columns, console=console, transient=transient)


@contextmanager
def counting(console: Console) -> Iterator[OnProgress]:
    """Show how far a check has come: a bar while it runs or, without a terminal, a line every half minute."""
    if not console.is_terminal:
        yield _lines(console)
        return
    with bars(console, transient=True) as progress:
        bar = Bar(progress, "")

        def hear(what: str, done: int, total: int) -> None:
            if what != bar.what:
                bar.what = what
                bar.pace.restart()
            bar.update(done, total)

        yield hear


def _lines(console: Console) -> OnProgress:
    last_line = time.monotonic()

    def hear(what: str, done: int, total: int) -> None:
        nonlocal last_line
        if time.monotonic() >= last_line + _LINE_EVERY_S:
            last_line = time.monotonic()
            say(console, f"{done:,} of {total:,} {what}")

    return hear
