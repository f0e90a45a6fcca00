"""The checksum over the values of a table, computed again.

It covers values, not encodings: SHA-256 over, for each column in schema order, its name in UTF-8 and a zero byte; one
byte a row, 1 where the value is present; then the values, absent ones as zeros (an absent list as A zeros). Numbers are
little-endian in the column's type. Strings and binaries are each an int64 length and their bytes (absent: length 0).
"""

import hashlib

import numpy as np
import pyarrow as pa


def columns_sha256(table: pa.Table) -> str:
    """Hex digest over the values of all columns."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(name.encode() + b"\0")
        for chunk in column.chunks:
            digest.update(chunk.is_valid().to_numpy(zero_copy_only=False).tobytes())
        for chunk in column.chunks:
            digest.update(_canonical(chunk))
    return digest.hexdigest()


def _canonical(values: pa.Array) -> bytes:
    if pa.types.is_fixed_size_list(values.type):
        there = values.flatten().fill_null(0).to_numpy(zero_copy_only=False)
        numbers = np.zeros((len(values), values.type.list_size), there.dtype)
        numbers[values.is_valid().to_numpy(zero_copy_only=False)] = there.reshape(-1, values.type.list_size)
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    else:
        texts = (value.encode() if isinstance(value, str) else value or b"" for value in values.to_pylist())
        return b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    return numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
