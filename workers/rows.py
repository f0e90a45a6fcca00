"""Rows of the table, step by step: a sample becomes a row, which gets votes, then certificates.

Not covered: the columns (runs/votes_table.py); voting and certifying (votes/job_voter.py).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.family import Record, RuleFamily
from smoothcert.workers.runs.votes_table import Row
from smoothcert.workers.tars.pixels import DecodedSample
from smoothcert.workers.votes.job_voter import ImageVotes


def row_of(shard: str, sample: DecodedSample) -> Row:
    """Make a row without votes; `shard` is the name of the sample's shard."""
    return Row(
        key=sample.key,
        shard=shard,
        index=sample.index,
        image_offset=sample.image_offset,
        image_bytes=sample.image_bytes,
        sha256=sample.sha256,
        status=sample.status,
        error=sample.error,
        label=sample.label,
        width=sample.width,
        height=sample.height,
    )


def with_votes(row: Row, votes: ImageVotes, place: int) -> Row:
    """The row with its votes, at `place` among those of its batch, or with the reason why they do not count."""
    if not votes.finite[place]:
        return replace(row, status="model_error", error="a logit is not finite")
    row = replace(row, votes=votes.classes[place], margins=votes.margins[place])
    if votes.clean_classes is None or votes.clean_margins is None:
        return row
    clean_class, clean_margin = votes.clean_classes[place], votes.clean_margins[place]
    return replace(row, clean_prediction=int(clean_class), clean_margin=float(clean_margin))


def with_certificates(rows: Sequence[Row], family: RuleFamily, certify: Callable[[Cast], Any]) -> list[Row]:
    """The rows; those with votes get predictions and certificates.

    Args:
        rows: of a shard.
        family: names the columns.
        certify: computes the columns, [images] each, from votes.
    """
    done = list(rows)
    voted = _voted(rows)
    if voted:
        certificates = certify(_cast_of([rows[position] for position in voted]))
        for place, position in enumerate(voted):
            predicted = _record_at(place, family.predicted, certificates)
            certified = _record_at(place, family.certified, certificates)
            done[position] = replace(rows[position], predicted=predicted, certified=certified)
    return done


def predictions(rows: Sequence[Row], predict: Callable[[Cast], NDArray[np.int32]]) -> NDArray[np.int64]:
    """[rows]: the prediction of each row, -1 without votes."""
    voted = _voted(rows)
    found = np.full(len(rows), -1)
    if voted:
        found[voted] = predict(_cast_of([rows[position] for position in voted]))
    return found


def numbers(values: Iterable[int | None]) -> NDArray[np.int64]:
    """A column as an array, -1 for None."""
    return np.array([-1 if value is None else value for value in values], np.int64)


def _voted(rows: Sequence[Row]) -> list[int]:
    """The positions of rows with votes."""
    return [position for position, row in enumerate(rows) if row.votes is not None]


def _cast_of(rows: Sequence[Row]) -> Cast:
    """The votes of rows that have some."""
    clean = numbers(row.clean_prediction for row in rows)
    clean_margins = np.array([np.nan if row.clean_margin is None else row.clean_margin for row in rows], np.float32)
    return Cast(
        np.stack([row.votes for row in rows if row.votes is not None]),
        np.stack([row.margins for row in rows if row.margins is not None]),
        numbers(row.label for row in rows),
        clean,
        clean_margins,
    )


def _record_at(place: int, record: type[Any], columns: Any) -> Record:
    """The columns of one image, as a record."""
    return record(**{field.name: _value_at(place, getattr(columns, field.name)) for field in fields(record)})


def _value_at(place: int, column: NDArray[Any] | None) -> int | bool | None:
    """A plain number or truth value; None if the column is unknown."""
    return None if column is None else column[place].item()
