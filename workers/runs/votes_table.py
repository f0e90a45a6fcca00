"""The Parquet table of votes: columns, checksum and file. It has one row per image, in tar order.

A row is a Row until it becomes part of a table. The schema is read from the fields of Row and of the records in it, so
the two cannot differ.

The checksum covers values, not encodings, so any tool can recompute it: SHA-256 over, for each column in
schema order, its name in UTF-8 and a zero byte; one byte per row, 1 where the value is present; then the values,
absent ones as zeros (an absent list as A zeros), numbers little-endian in the column's type, truth values as a byte of
0 or 1, strings and binaries each as an int64 length and their bytes (absent: length 0). If single elements of lists
are absent, one byte per element of all rows follows, 1 where it is present.

Not covered: what the values mean (votes/, certificates/); publishing the file (publication.py).
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.family import Record, RuleFamily
from smoothcert.workers.runs.records import FileMetadata

METADATA_KEY = b"smoothcert"
STATUSES = ("ok", "too_large", "decode_error", "size_error", "model_error", "label_error")

ABSENT = -1
"""The class of a row that has none, in an array of classes."""

_TEXT = pa.dictionary(pa.int32(), pa.string())
_OptionalInt32 = Annotated[int | None, pa.int32()]


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single answer to ==
class Row:
    """One image. Each field is a column, in this order, or a record of several columns.

    The annotation of a field names the column's type in Parquet; lists get the length A. A column is nullable if its
    field has a default. `predicted` and `certified` are records of several columns, as the rule family of the job's
    ablation defines them (certificates/families.py); None without votes.
    """

    key: Annotated[str, pa.string()]
    """The sample's key in the tar. Rows pair across runs by shard and key."""
    shard: Annotated[str, _TEXT]
    """Base name of the tar."""
    index: Annotated[int, pa.int32()]
    """Position among the rows of the shard, from 0; rows with errors count."""
    image_offset: Annotated[int, pa.int64()]
    """Where the bytes of the image begin in the tar, in bytes."""
    image_bytes: Annotated[int, pa.int32()]
    """Number of these bytes."""
    sha256: Annotated[bytes, pa.binary(32)]
    """SHA-256 of these bytes."""
    status: Annotated[str, _TEXT]
    """ok, or the first that applies: too_large, decode_error, size_error, model_error (a logit is not finite),
    label_error. The votes are null unless it is ok or label_error."""
    error: Annotated[str | None, pa.string()] = None
    """Why the status is not ok, in words."""
    label: _OptionalInt32 = None
    """Class of the image, from 0; null where it is missing, malformed or out of range."""
    width: _OptionalInt32 = None
    """Width of the image before preprocessing, in pixels."""
    height: _OptionalInt32 = None
    """Height of the image before preprocessing, in pixels."""
    clean_prediction: _OptionalInt32 = None
    """Class of the whole image; null if the job has `clean: false`."""
    clean_margin: Annotated[float | None, pa.float32()] = None
    """Difference of its two largest logits."""
    predicted: Record | None = None
    votes: Annotated[NDArray[np.integer] | None, pa.list_(pa.uint16())] = None
    """Class of each ablation, in the order of offsets or masks; null where no vote was cast (`early_exit` of masks)."""
    margins: Annotated[NDArray[np.float32] | None, pa.list_(pa.float32())] = None
    """Difference of the two largest logits of each ablation; null where no vote was cast."""
    certified: Record | None = None


def schema(num_ablations: int, family: RuleFamily) -> pa.Schema:
    """The columns of a rule family, for A = `num_ablations` votes per image."""
    return pa.schema([column.field for column in _columns(num_ablations, family)])


def encode(rows: Sequence[Row], num_ablations: int, family: RuleFamily, metadata: FileMetadata) -> bytes:
    """A Parquet file of the rows.

    Args:
        rows: in tar order.
        num_ablations: A, the length of votes and margins.
        family: of the run; `predicted` and `certified` of the rows are its records.
        metadata: what the file records about itself; the checksum of the columns is added.
    Raises:
        pyarrow.ArrowInvalid: a required value is None.
    """
    columns = list(_columns(num_ablations, family))
    arrays = [pa.array([column.value_of(row) for row in rows], column.field.type) for column in columns]
    return as_file(pa.table(arrays, schema=schema(num_ablations, family)), metadata)


def as_file(table: pa.Table, metadata: FileMetadata) -> bytes:
    """A Parquet file of a table that has the columns of `schema`; arguments otherwise as for `encode`."""
    described = metadata.model_copy(update={"columns_sha256": columns_sha256(table)})
    table = table.replace_schema_metadata({METADATA_KEY: described.encode()})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


class _Column(NamedTuple):
    """A column, and the function that takes its value from a row."""

    field: pa.Field
    value_of: Callable[[Row], Any]


def _columns(num_ablations: int, family: RuleFamily) -> Iterator[_Column]:
    """The fields of Row in order; a record gives a column for each of its own fields."""
    records = {"predicted": family.predicted, "certified": family.certified}
    hints = get_type_hints(Row, include_extras=True)
    for field in fields(Row):
        if field.name in records:
            kinds = get_type_hints(records[field.name])
            yield from (_column_of(field.name, inner.name, kinds[inner.name]) for inner in fields(records[field.name]))
            continue
        _, kind = get_args(hints[field.name])
        value_of: Callable[[Row], Any] = attrgetter(field.name)
        if pa.types.is_list(kind):
            kind, value_of = pa.list_(kind.value_type, num_ablations), partial(_list_of, field.name)
        yield _Column(pa.field(field.name, kind, nullable=field.default is not MISSING), value_of)


def _list_of(name: str, row: Row) -> Any:
    """Votes or margins of a row, None in place of those that were not cast."""
    values = getattr(row, name)
    if values is None or row.votes is None or not (skipped := np.asarray(row.votes) == ABSENT).any():
        return values
    return [
        None if left_out else value
        for value, left_out in zip(np.asarray(values).tolist(), skipped.tolist(), strict=True)
    ]


def _column_of(record: str, name: str, kind: Any) -> _Column:
    """A column of a record; null in rows without the record."""

    def value_of(row: Row) -> Any:
        there = getattr(row, record)
        return None if there is None else getattr(there, name)

    is_truth = bool in (kind, *get_args(kind))
    return _Column(pa.field(name, pa.bool_() if is_truth else pa.int32()), value_of)


def _canonical_lists(column: pa.ChunkedArray, kind: pa.DataType) -> bytes:
    there, lists = column.is_valid().to_numpy(), column.drop_null()
    shape = len(column), kind.list_size
    matrix = np.zeros(shape, np.dtype(kind.value_type.to_pandas_dtype()).newbyteorder("<"))
    elements = pa.chunked_array([chunk.flatten() for chunk in lists.chunks], kind.value_type)
    matrix[there] = elements.fill_null(0).to_numpy().reshape(-1, kind.list_size)
    if not elements.null_count:
        return matrix.tobytes()
    present = np.zeros(shape, np.uint8)
    present[there] = elements.is_valid().to_numpy().reshape(-1, kind.list_size)
    return matrix.tobytes() + present.tobytes()


def column(name: str, kind: pa.DataType, meaning: str, *, nullable: bool = False) -> pa.Field:
    """A column of a file that is no file of votes; its meaning goes into the file."""
    return pa.field(name, kind, nullable, {"meaning": meaning})


def matrix_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """[rows, A]: votes or margins; no row may lack them. A vote that was not cast is ABSENT, its margin NaN."""
    kind = column.type
    flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
    if flat.null_count:
        is_vote = pa.types.is_integer(kind.value_type)
        flat = flat.cast(pa.int32()).fill_null(ABSENT) if is_vote else flat.fill_null(float("nan"))
    matrix: NDArray[Any] = flat.to_numpy().reshape(len(column), kind.list_size)
    return matrix


def cast_of(rows: pa.Table) -> Cast:
    """The votes of rows, which no row may lack, with those of the other columns of Cast that the table has."""

    def numbers(name: str) -> NDArray[np.int64] | None:
        return numbers_of(rows[name]) if name in rows.column_names else None

    margins = matrix_of(rows["margins"]) if "margins" in rows.column_names else None
    clean_margins = None
    if "clean_margin" in rows.column_names:
        clean_margins = rows["clean_margin"].fill_null(float("nan")).to_numpy()
    return Cast(matrix_of(rows["votes"]), margins, numbers("label"), numbers("clean_prediction"), clean_margins)


def numbers_of(column: pa.ChunkedArray, absent: int = ABSENT) -> NDArray[np.int64]:
    """[rows]: a column of numbers, with `absent` where a row has none."""
    numbers: NDArray[np.int64] = column.cast(pa.int64()).fill_null(absent).to_numpy()
    return numbers


def spread(values: pa.Array, there: NDArray[np.bool_]) -> pa.Array:
    """Put the values into the rows that are `there`, in order, and null into the others."""
    return values.take(pa.array(np.cumsum(there) - 1, mask=~there))


def columns_sha256(table: pa.Table) -> str:
    """The checksum of a table, in hex, as the head of this file defines it."""
    digest = hashlib.sha256()
    for field, column in zip(table.schema, table.columns, strict=True):
        digest.update(field.name.encode() + b"\0")
        digest.update(column.is_valid().to_numpy().astype(np.uint8).tobytes())
        digest.update(_canonical(column, field.type))
    return digest.hexdigest()


def _canonical(column: pa.ChunkedArray, kind: pa.DataType) -> bytes:
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_fixed_size_list(kind):
        return _canonical_lists(column, kind)
    if pa.types.is_string(kind) or pa.types.is_fixed_size_binary(kind):
        values = [value.encode() if isinstance(value, str) else value or b"" for value in column.to_pylist()]
        return b"".join(len(value).to_bytes(8, "little") + value for value in values)
    numbers = column.fill_null(pa.scalar(0).cast(kind)).to_numpy()
    return numbers.astype(np.dtype(kind.to_pandas_dtype()).newbyteorder("<")).tobytes()
