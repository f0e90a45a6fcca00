"""The checksum over the values of a table, computed again.

It covers values, not encodings: SHA-256 over, for each column in schema order, its name in UTF-8 and a zero byte; one
byte a row, 1 where the value is present; then the values, absent ones as zeros (an absent list as A zeros). Numbers are
little-endian in the column's type, truth values a byte each. Strings and binaries are each an int64 length and their
bytes (absent: length 0). If a list of the column has null elements, these count as zeros, and one byte for each element
of all rows follows: 1 where it is present, 0 where it is null or its list is absent.
"""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def columns_sha256(table: pa.Table) -> str:
    """Hex digest over the values of all columns."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(name.encode() + b"\0")
        for chunk in column.chunks:
            digest.update(_is_there(chunk).tobytes())
        for chunk in column.chunks:
            digest.update(_canonical(chunk))
        if pa.types.is_fixed_size_list(column.type) and any(chunk.flatten().null_count for chunk in column.chunks):
            for chunk in column.chunks:
                digest.update(_in_lists(chunk, _is_there(chunk.flatten())).tobytes())
    return digest.hexdigest()


def _is_there(values: pa.Array) -> NDArray[np.bool_]:
    there: NDArray[np.bool_] = values.is_valid().to_numpy(zero_copy_only=False)
    return there


def _canonical(values: pa.Array) -> bytes:
    if pa.types.is_fixed_size_list(values.type):
        numbers = _in_lists(values, values.flatten().fill_null(0).to_numpy(zero_copy_only=False))
    elif pa.types.is_boolean(values.type):
        numbers = values.fill_null(False).to_numpy(zero_copy_only=False)
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    else:
        texts = (value.encode() if isinstance(value, str) else value or b"" for value in values.to_pylist())
        return b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    return numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()


def _in_lists(values: pa.FixedSizeListArray, elements: NDArray[Any]) -> NDArray[Any]:
    """[rows, A]: the elements of the lists that are there; zeros where a list is absent."""
    lists = np.zeros((len(values), values.type.list_size), elements.dtype)
    lists[_is_there(values)] = elements.reshape(-1, values.type.list_size)
    return lists
