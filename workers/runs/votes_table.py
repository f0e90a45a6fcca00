"""The Parquet table of votes: one row per image, in tar order; its columns, its checksum, its file.

A row is a Row until it becomes part of a table. The schema is read from the fields of Row, so the two cannot differ.

The checksum covers values, not encodings, so any tool can recompute it: SHA-256 over, for each column in
schema order, its name in UTF-8 and a zero byte; one byte per row, 1 where the value is present; then the values,
absent ones as zeros (an absent list as A zeros), numbers little-endian in the column's type, strings and
binaries each as an int64 length and their bytes (absent: length 0).

Not covered: what the values mean (votes/, certificates/); publishing the file (publication.py).
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from operator import attrgetter
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

METADATA_KEY = b"smoothcert"
STATUSES = ("ok", "too_large", "decode_error", "size_error", "model_error", "label_error")

_TEXT = pa.dictionary(pa.int32(), pa.string())
_OptionalInt32 = Annotated[int | None, pa.int32()]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Columns of what the smoothed classifier says; null without votes."""

    prediction: _OptionalInt32 = None
    count: _OptionalInt32 = None
    runner_up: _OptionalInt32 = None
    runner_up_count: _OptionalInt32 = None


@dataclass(frozen=True, slots=True)
class LargestPatches:
    """Columns of what is certified: the sides of the largest squares, by either rule; null without votes."""

    max_certified_patch: _OptionalInt32 = None
    max_margin_certified_patch: _OptionalInt32 = None


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single answer to ==
class Row:
    """One image. Each field is a column, in this order, or a record of several columns.

    The annotation of a field names the column's type in Parquet; lists get the length A. A column is nullable if its
    field has a default. What Prediction and LargestPatches hold depends on the kind of ablation; all other columns
    are the same for every kind.
    """

    key: Annotated[str, pa.string()]
    shard: Annotated[str, _TEXT]
    index: Annotated[int, pa.int32()]
    image_offset: Annotated[int, pa.int64()]
    image_bytes: Annotated[int, pa.int32()]
    sha256: Annotated[bytes, pa.binary(32)]
    status: Annotated[str, _TEXT]
    error: Annotated[str | None, pa.string()] = None
    label: _OptionalInt32 = None
    width: _OptionalInt32 = None
    height: _OptionalInt32 = None
    clean_prediction: _OptionalInt32 = None
    clean_margin: Annotated[float | None, pa.float32()] = None
    predicted: Prediction = Prediction()
    votes: Annotated[NDArray[np.uint16] | None, pa.list_(pa.uint16())] = None
    margins: Annotated[NDArray[np.float32] | None, pa.list_(pa.float32())] = None
    certified: LargestPatches = LargestPatches()


def schema(num_ablations: int) -> pa.Schema:
    """The columns for A = `num_ablations` votes per image."""
    return pa.schema([field for _, field in _columns(Row, num_ablations)])


def encode(rows: Sequence[Row], num_ablations: int, metadata: Mapping[str, Any]) -> bytes:
    """A Parquet file of the rows.

    Args:
        rows: in tar order.
        num_ablations: A, the length of votes and margins.
        metadata: JSON values, kept under the file's key `smoothcert` with the checksum added.
    Raises:
        pyarrow.ArrowInvalid: a required value is None.
    """
    arrays = [pa.array([value_of(row) for row in rows], field.type) for value_of, field in _columns(Row, num_ablations)]
    table = pa.table(arrays, schema=schema(num_ablations))
    described = {**metadata, "columns_sha256": columns_sha256(table)}
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(described, sort_keys=True)})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def _columns(record: Any, num_ablations: int, path: str = "") -> Iterator[tuple[Callable[[Row], Any], pa.Field]]:
    """The columns of a record's fields: what takes the value from a row, and the column.

    Args:
        record: Row, or the type of a record in it.
        num_ablations: A, the length of lists.
        path: from a row to the record, such as `predicted.`.
    """
    hints = get_type_hints(record, include_extras=True)
    for field in fields(record):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from _columns(hint, num_ablations, f"{path}{field.name}.")
            continue
        _, kind = get_args(hint)
        kind = pa.list_(kind.value_type, num_ablations) if pa.types.is_list(kind) else kind
        nullable = field.default is not MISSING
        yield attrgetter(path + field.name), pa.field(field.name, kind, nullable=nullable)


def read_metadata(file: Any) -> dict[str, Any]:
    """The metadata that `encode` got, with the checksum; `file` is a path or file object.

    Raises:
        ValueError: the file is damaged, or smoothcert did not write it.
    """
    try:
        metadata: dict[str, Any] = json.loads(pq.read_schema(file).metadata[METADATA_KEY])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:  # Arrow's words for damage
        raise ValueError(" ".join(str(error).split())) from None
    return metadata


def matrix_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """[rows, A]: votes or margins; no row may lack them."""
    kind = column.type
    flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
    matrix: NDArray[Any] = flat.to_numpy().reshape(len(column), kind.list_size)
    return matrix


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
        matrix = np.zeros((len(column), kind.list_size), np.dtype(kind.value_type.to_pandas_dtype()).newbyteorder("<"))
        matrix[column.is_valid().to_numpy()] = matrix_of(column.drop_null())
        return matrix.tobytes()
    if pa.types.is_string(kind) or pa.types.is_fixed_size_binary(kind):
        values = [value.encode() if isinstance(value, str) else value or b"" for value in column.to_pylist()]
        return b"".join(len(value).to_bytes(8, "little") + value for value in values)
    numbers = column.fill_null(0).to_numpy()
    return numbers.astype(np.dtype(kind.to_pandas_dtype()).newbyteorder("<")).tobytes()
