"""The Parquet table of votes: one row an image, in tar order; its schema, its checksum, its file.

The checksum covers values, not encodings, so any tool can recompute it: SHA-256 over, for each column in
schema order, its name in UTF-8 and a zero byte; one byte a row, 1 where the value is present; then the values,
absent ones as zeros (an absent list as A zeros), numbers little-endian in the column's type, strings and
binaries each as an int64 length and their bytes (absent: length 0).

Not covered: what the values mean (certifier.py, certificates/).
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_TEXT = pa.dictionary(pa.int32(), pa.string())
METADATA_KEY = b"smoothcert"
STATUSES = ("ok", "too_large", "decode_error", "size_error", "model_error", "label_error")


def schema(num_ablations: int) -> pa.Schema:
    """The columns for A = `num_ablations` votes an image."""
    required = [
        ("key", pa.string()),
        ("shard", _TEXT),
        ("index", pa.int32()),
        ("image_offset", pa.int64()),
        ("image_bytes", pa.int32()),
        ("sha256", pa.binary(32)),
        ("status", _TEXT),
    ]
    nullable = [
        ("error", pa.string()),
        ("label", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("clean_prediction", pa.int32()),
        ("clean_margin", pa.float32()),
        ("prediction", pa.int32()),
        ("count", pa.int32()),
        ("runner_up", pa.int32()),
        ("runner_up_count", pa.int32()),
        ("votes", pa.list_(pa.uint16(), num_ablations)),
        ("margins", pa.list_(pa.float32(), num_ablations)),
        ("max_certified_patch", pa.int32()),
        ("max_margin_certified_patch", pa.int32()),
    ]
    return pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in required]
        + [pa.field(name, kind) for name, kind in nullable]
    )


def encode(rows: Sequence[Mapping[str, Any]], num_ablations: int, metadata: Mapping[str, Any]) -> bytes:
    """A Parquet file of the rows.

    Args:
        rows: a mapping of column to value each; what is left out is null.
        num_ablations: A, the length of votes and margins.
        metadata: JSON values, kept under the file's key `smoothcert` with the checksum added.
    """
    columns = schema(num_ablations)
    table = pa.table([pa.array([row.get(field.name) for row in rows], field.type) for field in columns], schema=columns)
    described = {**metadata, "columns_sha256": columns_sha256(table)}
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(described, sort_keys=True)})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def read_metadata(file: Any) -> dict[str, Any]:
    """The metadata that `encode` was given; `file` is a path or file object.

    Raises:
        ValueError: the file is damaged, or another's.
    """
    try:
        metadata: dict[str, Any] = json.loads(pq.read_schema(file).metadata[METADATA_KEY])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:  # Arrow's words for damage
        raise ValueError(" ".join(str(error).split())) from None
    return metadata


def matrix_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """[rows, A]: votes or margins of rows that all have them."""
    kind = column.type
    flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
    matrix: NDArray[Any] = flat.to_numpy().reshape(len(column), kind.list_size)
    return matrix


def columns_sha256(table: pa.Table) -> str:
    """Hex digest over the values of all columns, as the head of this file defines it."""
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
