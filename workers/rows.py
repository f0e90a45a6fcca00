"""Rows of the table, step by step: a sample becomes a row, which gets votes, then certificates.

Not covered: the columns (runs/votes_table.py); voting and certifying (votes/job_voter.py).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoothcert.workers.certificates.families import Record, RuleFamily
from smoothcert.workers.runs.votes_table import Row
from smoothcert.workers.tars.pixels import DecodedSample
from smoothcert.workers.votes.job_voter import ImageVotes

Votes = NDArray[np.uint16]


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


def with_certificates(rows: Sequence[Row], family: RuleFamily, certify: Callable[[Votes], Any]) -> list[Row]:
    """The rows; those with votes get predictions and certificates.

    Args:
        rows: of a shard.
        family: names the columns.
        certify: computes the columns, [images] each, from votes [images, ablations].
    """
    done = list(rows)
    votes = _votes_by_position(rows)
    if votes:
        certificates = certify(np.stack(list(votes.values())))
        for place, position in enumerate(votes):
            predicted = _record_at(place, family.predicted, certificates)
            certified = _record_at(place, family.certified, certificates)
            done[position] = replace(rows[position], predicted=predicted, certified=certified)
    return done


def predictions(rows: Sequence[Row], predict: Callable[[Votes], NDArray[np.int32]]) -> NDArray[np.int64]:
    """[rows]: the prediction of each row, -1 without votes; `predict` takes votes [images, ablations]."""
    votes = _votes_by_position(rows)
    found = np.full(len(rows), -1)
    if votes:
        found[list(votes)] = predict(np.stack(list(votes.values())))
    return found


def numbers(values: Iterable[int | None]) -> NDArray[np.int64]:
    """A column as an array, -1 for None."""
    return np.array([-1 if value is None else value for value in values], np.int64)


def _votes_by_position(rows: Sequence[Row]) -> dict[int, Votes]:
    return {position: row.votes for position, row in enumerate(rows) if row.votes is not None}


def _record_at(place: int, record: type[Any], columns: Any) -> Record:
    """The columns of one image, as a record."""
    return record(**{field.name: int(getattr(columns, field.name)[place]) for field in fields(record)})
