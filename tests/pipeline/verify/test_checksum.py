"""The checksum of a table, computed by two implementations."""

import hashlib
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.pipeline.verify.checksum import columns_sha256
from smoothcert.workers.runs import votes_table
from tests.helpers.finished_runs import file_of


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("rows_per_chunk", [1, 3, 100])
def test_the_checksum_is_that_of_the_table(finished: Path, number: int, rows_per_chunk: int) -> None:
    """Over values, nulls and lists, and not over how they lie in chunks. Oracle: the code that writes it."""
    table = pq.read_table(file_of(finished, number))
    chunks = pa.Table.from_batches(table.to_batches(max_chunksize=rows_per_chunk))
    assert columns_sha256(chunks) == votes_table.columns_sha256(table)


def test_elements_that_are_null_count_as_zeros_and_are_marked() -> None:
    """After the values of all rows; an absent list has no element. Oracle: the definition, byte by byte."""
    lists = [[1, None, 3], None, [None, 5, 6]]
    expected = hashlib.sha256(b"votes\0" + bytes([1, 0, 1]))
    expected.update(struct.pack("<9H", 1, 0, 3, 0, 0, 0, 0, 5, 6) + bytes([1, 0, 1, 0, 0, 0, 0, 1, 1]))
    table = pa.table({"votes": pa.array(lists, pa.list_(pa.uint16(), 3))})
    assert columns_sha256(table) == expected.hexdigest()
    chunks = pa.Table.from_batches(table.to_batches(max_chunksize=2))
    assert columns_sha256(chunks) == expected.hexdigest()
    whole = pa.table({"votes": pa.array([[1, 0, 3], None, [0, 5, 6]], pa.list_(pa.uint16(), 3))})
    assert columns_sha256(whole) != expected.hexdigest()


def test_truth_values_are_a_byte_each() -> None:
    """Null is 0, and marked as of any column."""
    table = pa.table({"certified": pa.array([True, None, False], pa.bool_())})
    assert columns_sha256(table) == hashlib.sha256(b"certified\0" + bytes([1, 0, 1]) + bytes([1, 0, 0])).hexdigest()


@pytest.mark.parametrize("rows_per_chunk", [1, 100])
def test_the_checksum_of_masks_is_that_of_the_table(any_masks: Path, rows_per_chunk: int) -> None:
    """With and without null elements. Oracle: the code that writes it."""
    table = pq.read_table(file_of(any_masks))
    chunks = pa.Table.from_batches(table.to_batches(max_chunksize=rows_per_chunk))
    assert columns_sha256(chunks) == votes_table.columns_sha256(table)
