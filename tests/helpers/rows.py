"""Rows of the table of votes, made from columns by name."""

from dataclasses import fields
from typing import Any

from smoothcert.workers.runs.votes_table import LargestPatches, Prediction, Row


def row_of(**columns: Any) -> Row:
    """A row with these columns; a name that is not a column is a TypeError."""
    records: dict[str, Any] = {}
    for name, record in (("predicted", Prediction), ("certified", LargestPatches)):
        own = columns.keys() & {field.name for field in fields(record)}
        records[name] = record(**{column: columns.pop(column) for column in own})
    return Row(**columns, **records)
