"""A finding: one thing that is wrong with a run, where it is, and the line that says so.

Not covered: what is looked for (the other files of this room); what is done about it (repair.py).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pprint import saferepr

MISSING_FILE = "is missing, though _SUCCESS is there"
MAX_REPORTED_ROWS = 100
"""Findings that are reported for one column of one file; the rest are counted."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        file: name of the file, relative to the run.
        text: what is wrong there; empty if `entry` says it all.
        entry: a part of the file, such as `metadata geometry`; None for the file as a whole, or for a row.
        row: position of the row; None if the finding is not about a row.
        key: of that row.
        column: of that row, or of the whole file.
    """

    file: str
    text: str
    entry: str | None = None
    row: int | None = None
    key: str | None = None
    column: str | None = None

    @property
    def line(self) -> str:
        """The finding as it is printed."""
        row = f"row {self.row} key {self.key!r}" if self.row is not None else None
        column = f"column {self.column}" if self.column is not None else None
        entry = shown(self.entry) if self.entry is not None else None
        place = " ".join(filter(None, (shown(self.file), entry, row, column)))
        return f"{place}: {self.text}" if self.text else place


def shown(value: object) -> str:
    """A value on one line; mappings with their keys sorted, so that two can be compared by eye."""
    return value if isinstance(value, str) and value.isprintable() else saferepr(value)


def limit_findings(file: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The first findings of each column of a file, then a line for each column that has more."""
    found = Counter[str | None]()
    for finding in findings:
        found[finding.column] += 1
        if found[finding.column] <= MAX_REPORTED_ROWS:
            yield finding
    for column, times in found.items():
        if times > MAX_REPORTED_ROWS:
            yield Finding(file, f"{times - MAX_REPORTED_ROWS:,} more rows are wrong", column=column)
