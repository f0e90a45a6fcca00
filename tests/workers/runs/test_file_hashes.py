"""A file is known by two hashes, that of all and that of its footer."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.workers.runs.file_hashes import footer_bytes, footer_sha256, hashes_of


def test_the_footer_is_where_parquet_has_it(tmp_path: Path) -> None:
    """As pyarrow measures it, with its length and the letters behind it; the end of the file gives the same hash."""
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": range(1000)}), file)
    data, length = file.read_bytes(), pq.read_metadata(file).serialized_size + 8
    assert footer_bytes(data) == footer_bytes(data[-8:]) == length
    assert hashes_of(data) == (hashlib.sha256(data).hexdigest(), hashlib.sha256(data[-length:]).hexdigest())
    assert footer_sha256(data[-length - 5 :]) == footer_sha256(bytearray(data)) == hashes_of(data).footer_sha256


def test_other_values_or_metadata_give_another_footer(tmp_path: Path) -> None:
    """Statistics and offsets are in it, and what the file says about itself."""
    tables = [
        pa.table({"a": [1, 2]}),
        pa.table({"a": [1, 3]}),
        pa.table({"a": [1, 2]}).replace_schema_metadata({"b": "c"}),
    ]
    found = set()
    for table in tables:
        pq.write_table(table, tmp_path / "a.parquet")
        found.add(hashes_of((tmp_path / "a.parquet").read_bytes()).footer_sha256)
    assert len(found) == 3
