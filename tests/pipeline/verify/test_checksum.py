"""The checksum of a table, computed by two implementations."""

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
