"""How printed text looks for people: lines, tables, numbers, colour.

On a terminal, lines wrap between words and tables fit the width. Piped output is never wrapped, cut or coloured.
Names from the user's files are printed as they are: they contain no markup, and unprintable characters are escaped.

Spans of time are our own: humanize writes `3 hours and 20 minutes`, and has no short units for columns and lines.
Not covered: progress bars (bars.py), JSON (each command prints its own to stdout).
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import ClassVar

from rich.cells import cell_len
from rich.console import Console
from rich.highlighter import RegexHighlighter
from rich.table import Column, Table
from rich.theme import Theme

_PIPED_WIDTH = 10**5  # columns
_MIN_WIDTH = 60  # columns; a narrower terminal wraps lines itself, so no cell is cut
_HASH_DIGITS = 12
DASH = "-"
"""Replaces a number that does not exist, such as an accuracy without labels."""


class _Marks(RegexHighlighter):
    """Colours the words that a reader must not miss; rich omits colour for pipes and NO_COLOR."""

    base_style = "mark."
    highlights: ClassVar[list[str]] = [
        r"(?m)^(\[\d+/\d+\] )?(?P<wrong>error:|failed:|problem:)",
        r"(?m)^(?P<notice>notice:|again:)",
        r"(?<![-\w])(?P<wrong>INCOMPLETE|UNFINISHED|incomplete|[\d,]+ problems?)\b",
        r"\b(?P<notice>PARTIAL)\b",
        r"\b(?P<right>all right|complete)\b",
    ]


_COLOURS = Theme({"mark.wrong": "bold red", "mark.notice": "bold yellow", "mark.right": "green"})


def console_of(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr."""
    console = Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlighter=_Marks(),
        theme=_COLOURS,
        force_jupyter=False,  # a notebook shows the same text as a pipe; rich would make HTML of each line
    )
    console.width = max(console.width, _MIN_WIDTH) if console.file.isatty() else _PIPED_WIDTH
    return console


def say(console: Console, line: str, *, indent: str = "") -> None:
    """Print a line that wraps between words; a longer word, such as a path, stays whole so that it can be copied."""
    parts = plain(line).split("\n")
    console.print("\n".join(_wrapped(part, console.width, indent) for part in parts), soft_wrap=True)


def _wrapped(line: str, width: int, indent: str) -> str:
    lines = [""]
    for word in re.findall(r"\s*\S+", line):
        if lines[-1] and cell_len(lines[-1] + word) > width:
            lines.append(indent + word.lstrip())
        else:
            lines[-1] += word
    return "\n".join(lines)


def show(console: Console, table: Table) -> None:
    """Print a table, with its title as a line above it: rich would wrap the title to the width of the table."""
    title, table.title = table.title, None
    if title:
        say(console, str(title))
    console.print(table)


def fits(console: Console, table: Table) -> bool:
    """Whether no cell of a table needs to wrap."""
    unlimited = console.options.update(max_width=_PIPED_WIDTH)
    return console.measure(table, options=unlimited).maximum <= console.width


def facts(title: str, *, columns: int = 1) -> Table:
    """An empty table with a column of names and one or more columns of values."""
    values = [Column(justify="right", overflow="fold", highlight=True) for _ in range(columns)]
    return Table(Column(no_wrap=True), *values, title=title, show_header=False)


def plain(text: str) -> str:
    """The text with every unprintable character escaped, except newlines."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def cell_text(text: str) -> str:
    """The text as one line of a cell: newlines are escaped, too."""
    return plain(text).replace("\n", r"\n")


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, no link, no emphasis, no end of a line or cell."""
    shown = html.escape(cell_text(text), quote=False).replace("|", "&#124;")
    return re.sub(r"[\\`*_\[\]~]", r"\\\g<0>", shown)


def markdown_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The lines of a table; the keys of the rows are the titles of its columns."""
    if not rows:
        return []
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    lines = [f"| {' | '.join(map(markdown_text, line))} |" for line in cells]
    return [lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]]


def number_of(count: int, what: str) -> str:
    """`1 image`, `1,234 images`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def digits(value: float) -> str:
    """A number of at least 0 with at least three digits: `1,234`, `12.3`, `0.00123`."""
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{max(0, decimals)}f}"


def flop_text(operations: float) -> str:
    """A number of operations in a suitable unit: `281 GFLOP`."""
    power = min(6, max(0, math.floor(math.log10(operations) / 3))) if operations > 0 else 0
    return f"{digits(operations / 1000**power)} {' kMGTPE'[power].strip()}FLOP"


def percent(share: float | None) -> str:
    """`12.34 %`, or a dash for None."""
    return DASH if share is None else f"{100 * share:.2f} %"


def span(seconds: float) -> str:
    """`3 h 20 min`, `3 min 20 s`, `3.2 s`."""
    if seconds < 0.1:
        return "under 0.1 s" if seconds > 0 else "0 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def short_hash(sha256: str) -> str:
    """The start of a hash, long enough to distinguish two files."""
    return sha256[:_HASH_DIGITS]


def checkpoint(url: str, sha256: str) -> str:
    """The file name of a checkpoint and the start of its SHA-256."""
    return f"{PurePosixPath(url).name}, SHA-256 {short_hash(sha256)}"
