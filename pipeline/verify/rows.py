"""Check the rows of a file: each against the job, against itself, and against the row before it.

Not covered: the type of a column, the checksum (files.py); how votes are counted (recount.py, recount_masks.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smoothcert.pipeline.verify.figures import Totals
from smoothcert.pipeline.verify.findings import Finding, shown
from smoothcert.pipeline.verify.masks import Masks
from smoothcert.pipeline.verify.record import RecordedJob, RecordedShard
from smoothcert.pipeline.verify.recount import NUMBERS_AT_ONCE, Recount, recount
from smoothcert.pipeline.verify.recount_masks import ABSENT, MaskRecount, missing, recount_masks

STATUSES = ("ok", "label_error", "model_error", "too_large", "size_error", "decode_error")
STATUSES_WITH_VOTES = ("ok", "label_error")
MAX_PIXELS = 64 * 1000**2
TAR_BLOCK_BYTES = 512
MAX_ROWS_AT_ONCE = 4096

Wrong = Iterator[tuple[str, str]]
"""A column of a row, and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image, column by column. The types are those of a correct row; a wrong one may have a null anywhere.

    Attributes:
        votes: [ablations], ABSENT where an element is null.
        margins: [ablations], NaN where an element is null.
        no_margin: [ablations], whether it is null.
        recovery_certified, recovery_published, detection_certified: only of masks.
    """

    key: str
    shard: str
    index: int
    image_offset: int
    image_bytes: int
    sha256: bytes
    status: str
    error: str | None
    label: int | None
    width: int | None
    height: int | None
    clean_prediction: int | None
    clean_margin: float | None
    prediction: int | None
    count: int | None
    runner_up: int | None
    runner_up_count: int | None
    votes: NDArray[Any] | None
    margins: NDArray[Any] | None
    max_certified_patch: int | None
    max_margin_certified_patch: int | None
    recovery_certified: bool | None = None
    recovery_published: bool | None = None
    detection_certified: bool | None = None
    no_margin: NDArray[np.bool_] | None = None


COLUMNS = tuple(each.name for each in fields(Row) if each.name != "no_margin")
REQUIRED = COLUMNS[: COLUMNS.index("error")]
"""Columns that are never null."""
CLEAN_VOTE_COLUMNS = ("clean_prediction", "clean_margin")
MAJORITY_COLUMNS, MASK_COLUMNS = (tuple(each.name for each in fields(kind)) for kind in (Recount, MaskRecount))
"""What follows from votes."""
NOT_OF_MASKS = tuple(name for name in MAJORITY_COLUMNS if name not in MASK_COLUMNS)
"""Columns that are null in a run of masks."""


@dataclass
class _Place:
    """Where the check of a file's rows stands.

    A wrong shard or index that continues is reported once, where it begins, because each row is compared with the row
    before it.

    Attributes:
        shard: of the row before.
        shift: index minus position of the row before.
        end: where the image of the row before ends in the tar, with its padding.
        first: position of the first row of each key.
    """

    shard: str
    shift: int = 0
    end: int = 0
    first: dict[str, int] = field(default_factory=dict)


def read_rows(batch: pa.RecordBatch) -> list[Row]:
    """The rows of a part of a table that has the columns of votes."""
    columns = {name: batch.column(name) for name in COLUMNS if name in batch.schema.names}
    values = {name: column.to_pylist() for name, column in columns.items() if name not in ("votes", "margins")}
    values["votes"], _ = _matrix(columns["votes"], np.int32, ABSENT)
    values["margins"], values["no_margin"] = _matrix(columns["margins"], np.float32, np.nan)
    absent = [None] * len(batch)
    return [Row(*row) for row in zip(*(values.get(each.name, absent) for each in fields(Row)), strict=True)]


def _matrix(column: pa.FixedSizeListArray, kind: type, absent: float) -> tuple[list[Any], list[Any]]:
    """The numbers of each row, `absent` where an element is null, and which are null; None in rows without a list."""
    length = column.type.list_size
    flat = column.values.slice(column.offset * length, len(column) * length)  # with those of lists that are null
    numbers = flat.fill_null(0).to_numpy().astype(kind).reshape(-1, length)
    is_null = flat.is_null().to_numpy(zero_copy_only=False).reshape(-1, length)
    numbers[is_null] = absent
    there = column.is_valid().to_pylist()

    def by_row(matrix: NDArray[Any]) -> list[Any]:
        return [row if valid else None for row, valid in zip(matrix, there, strict=True)]

    return by_row(numbers), by_row(is_null)


def check_rows(job: RecordedJob, shard: RecordedShard, file: str, table: pa.Table, totals: Totals) -> Iterator[Finding]:
    """Find everything that is wrong with the rows of a file, in their order.

    Args:
        job, shard: what run.json says of them.
        file: its name.
        table: with the columns of votes.
        totals: each row is added to them.
    """
    place, position = _Place(shard.name), 0
    step = max(1, min(MAX_ROWS_AT_ONCE, NUMBERS_AT_ONCE // job.ablations.num_ablations))
    for batch in table.to_batches(max_chunksize=step):
        rows = read_rows(batch)
        for row, counted in zip(rows, _recounts(job, rows), strict=True):
            totals.add(row, labelled=job.labelled)
            for column, text in _check_row(job, shard, row, counted, position, place):
                yield Finding(file, text, row=position, key=row.key, column=column)
            position += 1


class _Counted(NamedTuple):
    """What the votes of a row give, by column, empty if they cannot be counted; and which votes are missing."""

    columns: Mapping[str, Any]
    missing: Sequence[int] = ()


def _recounts(job: RecordedJob, rows: list[Row]) -> list[_Counted]:
    """What the votes of each row give."""
    counted = [_Counted({})] * len(rows)
    voted = [(number, row.votes) for number, row in enumerate(rows) if row.votes is not None]
    if not voted:
        return counted
    numbers, votes = np.array([number for number, _ in voted]), np.stack([each for _, each in voted]).astype(np.int64)
    ablations = job.ablations
    lacks = missing(ablations, votes) if isinstance(ablations, Masks) else votes == ABSENT
    for place in np.flatnonzero(lacks.any(axis=1)):
        counted[numbers[place]] = _Counted({}, np.flatnonzero(lacks[place]).tolist())
    whole = ~lacks.any(axis=1) & (votes < job.model.classes).all(axis=1)
    if whole.any():
        columns = _count(job, votes[whole], [rows[number] for number in numbers[whole]])
        for number, *values in zip(numbers[whole], *columns.values(), strict=True):
            counted[number] = _Counted(dict(zip(columns, values, strict=True)))
    return counted


def _count(job: RecordedJob, votes: NDArray[np.int64], rows: list[Row]) -> dict[str, list[Any]]:
    """The columns that follow from votes [rows, ablations], each of which is for a class."""
    found: Recount | MaskRecount
    if isinstance(ablations := job.ablations, Masks):
        clean = [ABSENT if row.clean_prediction is None else row.clean_prediction for row in rows]
        found = recount_masks(ablations, votes, np.array(clean))
    else:
        stored = np.array([row.max_certified_patch or 0 for row in rows])
        found = recount(ablations, votes, job.model.classes, stored)
    return {name: getattr(found, name).tolist() for name in _given_by_votes(job)}


def _given_by_votes(job: RecordedJob) -> tuple[str, ...]:
    """The columns that follow from votes."""
    if not isinstance(job.ablations, Masks):
        return MAJORITY_COLUMNS
    return MASK_COLUMNS if job.clean else tuple(name for name in MASK_COLUMNS if name != "detection_certified")


def _check_row(
    job: RecordedJob, shard: RecordedShard, row: Row, counted: _Counted, position: int, place: _Place
) -> Wrong:
    if missing := [name for name in REQUIRED if getattr(row, name) is None]:
        yield from ((name, "is null") for name in missing)
        return
    yield from _check_place(shard, row, position, place)
    if row.status in STATUSES:
        yield from _check_status(job, row)
        yield from _check_size(job, row)
    else:
        yield "status", f"is {shown(row.status)}, expected one of {', '.join(STATUSES)}"
    if isinstance(job.ablations, Masks):
        yield from (
            (name, f"is {getattr(row, name)}, but does not apply to masks")
            for name in NOT_OF_MASKS
            if getattr(row, name) is not None
        )
    if row.votes is not None:
        yield from _check_votes(job, row, row.votes, counted)


def _check_place(shard: RecordedShard, row: Row, position: int, place: _Place) -> Wrong:
    if (first := place.first.setdefault(row.key, position)) != position:
        yield "key", f"comes twice, first in row {first}"
    if row.shard not in (shard.name, place.shard):
        yield "shard", f"is {shown(row.shard)}, expected {shown(shard.name)}"
    place.shard = row.shard
    if row.index != position + place.shift:
        yield "index", f"is {row.index}, expected {position + place.shift}: a row is lost, doubled or misplaced"
        place.shift = row.index - position
    start, earliest = row.image_offset, place.end + TAR_BLOCK_BYTES  # a member's header comes before its bytes
    if start % TAR_BLOCK_BYTES or start < earliest:
        yield "image_offset", f"is {start}, expected a multiple of {TAR_BLOCK_BYTES} from {earliest} on"
    place.end = -(-(start + row.image_bytes) // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES
    if row.image_bytes < 0 or place.end + 2 * TAR_BLOCK_BYTES > shard.size:  # two zero blocks end a tar
        yield "image_bytes", f"is {row.image_bytes}, from {start} on in a shard of {shard.size} bytes"


def _check_status(job: RecordedJob, row: Row) -> Wrong:
    """The status says what is null; a label may be missing only with an error or in a job without labels."""
    status, voted = row.status, row.status in STATUSES_WITH_VOTES
    expected = dict.fromkeys(MASK_COLUMNS, False) | dict.fromkeys(CLEAN_VOTE_COLUMNS, voted and job.clean)
    expected |= dict.fromkeys(("votes", "margins", *_given_by_votes(job)), voted)
    expected |= {"error": status != "ok"}
    expected |= {"label": status == "ok" and job.labelled} if voted or not job.labelled else {}
    for name, there in expected.items():
        if (getattr(row, name) is not None) != there:
            yield name, f"is {'null' if there else 'there'}, which does not go with status {status}"
    for name, number in (("label", row.label), ("clean_prediction", row.clean_prediction)):
        if number is not None and not 0 <= number < job.model.classes:
            yield name, f"is {number}, expected 0 to {job.model.classes - 1}"
    if status == "label_error" and not job.labelled:
        yield "status", "is label_error, but the job has no labels"
    if row.clean_margin is not None and not 0 <= row.clean_margin < np.inf:
        yield "clean_margin", f"is {row.clean_margin}, expected a finite number from 0 on"


def _check_size(job: RecordedJob, row: Row) -> Wrong:
    """A status about the size goes with the width and height."""
    status, resize = row.status, job.preprocess.resize
    if row.width is None or row.height is None:
        if status != "decode_error" or (row.width, row.height) != (None, None):
            yield "width", f"and height are {(row.width, row.height)}, which does not go with status {status}"
        return
    short, long = sorted((row.width, row.height))
    resized = 0 if resize is None or short < 1 else resize * int(resize * long / short)
    if resize is not None and job.preprocess.squash:
        resized = resize**2
    large = max(short * long, resized) > MAX_PIXELS
    fits = short >= 1 and (resize is not None or (short, long) == (job.preprocess.crop, job.preprocess.crop))
    expected = {"too_large": large, "size_error": not large and not fits}
    if not expected.get(status, not large and fits):
        yield "status", f"is {status}, which does not go with an image of {row.width} x {row.height} pixels"


def _check_votes(job: RecordedJob, row: Row, votes: NDArray[Any], counted: _Counted) -> Wrong:
    """Everything that follows from the votes; _check_status reports nulls."""
    if row.margins is not None and row.no_margin is not None:
        yield from _check_margins(votes, row.margins, row.no_margin)
    if counted.missing:
        early_exit = isinstance(job.ablations, Masks) and job.ablations.early_exit
        why = ", but a mask that they belong to may have a uniform row" if early_exit else ""
        yield "votes", f"of the ablations {counted.missing} are null{why}"
    if not counted.columns and (wrong := np.flatnonzero(~(votes < job.model.classes)).tolist()):
        yield "votes", f"of the ablations {wrong} are {votes[wrong].tolist()}, expected 0 to {job.model.classes - 1}"
    for name, value in counted.columns.items():
        if getattr(row, name) not in (None, value):
            yield name, f"is {getattr(row, name)}, the votes give {value}"


def _check_margins(votes: NDArray[Any], margins: NDArray[Any], no_margin: NDArray[np.bool_]) -> Wrong:
    """Each vote has a margin; a vote that was not cast has none."""
    absent, is_right = votes == ABSENT, (margins >= 0) & (margins < np.inf)
    if np.where(absent, no_margin, is_right).all():
        return
    for wrong, expected in (
        (np.flatnonzero(~absent & ~is_right).tolist(), "expected finite numbers from 0 on"),
        (np.flatnonzero(absent & ~no_margin).tolist(), "but their votes are null"),
    ):
        if wrong:
            yield "margins", f"of the ablations {wrong} are {margins[wrong].tolist()}, {expected}"
