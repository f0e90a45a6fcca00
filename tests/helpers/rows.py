"""Rows of the table of votes, made from columns by name."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from smoothcert.workers.certificates.families import MAJORITY
from smoothcert.workers.certificates.family import RuleFamily
from smoothcert.workers.runs.records import FileMetadata
from smoothcert.workers.runs.votes_table import Row, encode


def row_of(family: RuleFamily = MAJORITY, **columns: Any) -> Row:
    """A row with these columns; a name that is not a column is a TypeError."""
    records: dict[str, Any] = {}
    if columns.get("votes") is not None:
        columns["votes"] = np.asarray(columns["votes"])
    for name, record in (("predicted", family.predicted), ("certified", family.certified)):
        own = columns.keys() & {field.name for field in fields(record)}
        if own:
            records[name] = record(**{field.name: columns.pop(field.name, None) for field in fields(record)})
    return Row(**columns, **records)


def file_of(
    rows: Iterable[Mapping[str, Any]], num_ablations: int, metadata: Mapping[str, Any], family: RuleFamily = MAJORITY
) -> bytes:
    """A file of votes with these rows and this metadata."""
    return encode([row_of(family, **row) for row in rows], num_ablations, family, FileMetadata.model_validate(metadata))
