"""Some columns of a file are fetched without the rest, and are read as from the whole file."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.manifests.job import Storage
from smoothcert.workers.runs import column_ranges
from smoothcert.workers.runs.column_ranges import with_columns
from smoothcert.workers.storage.store import AnyStore

ROWS = 3000


class Counting(AnyStore):
    """A store of folders that notes what is read."""

    def __init__(self) -> None:
        super().__init__(Storage())
        self.ranges: list[tuple[int, int]] = []
        self.whole = 0

    def read(self, url: str) -> bytes:
        self.whole += 1
        return super().read(url)

    def read_range(self, url: str, start: int, length: int) -> bytes:
        self.ranges.append((start, length))
        return super().read_range(url, start, length)


def write(file: Path, *, groups: int = 1) -> pa.Table:
    """A file of which nearly all is the column `votes`, in the middle."""
    table = pa.table(
        {
            "key": [f"{number:08d}" for number in range(ROWS)],
            "status": pa.array(["ok"] * ROWS).dictionary_encode(),
            "votes": pa.array([os.urandom(512) for _ in range(ROWS)], pa.binary(512)),
            "patch": pa.array(range(ROWS), pa.int32()),
        }
    )
    pq.write_table(table, file, compression="zstd", write_page_checksum=True, row_group_size=ROWS // groups)
    return table


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("columns", [["key"], ["patch"], ["status", "patch"], ["key", "status", "patch"], ["votes"]])
@pytest.mark.parametrize("end_bytes", [16, 64 * 1024])  # shorter than the footer, or long enough
def test_columns_are_those_of_the_whole_file(
    tmp_path: Path, columns: list[str], groups: int, end_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_ranges, "END_BYTES", end_bytes)
    file, store = tmp_path / "a.parquet", Counting()
    table = write(file, groups=groups)
    entry = store.find(str(file))
    assert entry is not None
    data = with_columns(store, entry, columns)
    assert data is not None
    assert len(data) == entry.size
    found = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(columns, use_threads=False)
    assert found.equals(table.select(columns))
    assert store.whole == 0
    for start, length in store.ranges:
        assert data[start : start + length] == file.read_bytes()[start : start + length]


def test_two_requests_leave_the_votes_out(tmp_path: Path) -> None:
    """One for the end and one for the columns before the votes."""
    file, store = tmp_path / "a.parquet", Counting()
    write(file)
    entry = store.find(str(file))
    assert entry is not None
    data = with_columns(store, entry, ["key", "status", "patch"])
    assert len(store.ranges) == 2
    assert sum(length for _, length in store.ranges) < entry.size / 10
    with pytest.raises(OSError, match=r"checksum|Corrupt|deserialize|page"):
        pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(["votes"], use_threads=False)


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    """That is one request."""
    file, store = tmp_path / "a.parquet", Counting()
    pq.write_table(pa.table({"key": ["a"]}), file)
    entry = store.find(str(file))
    assert entry is not None
    assert with_columns(store, entry, ["key"]) == file.read_bytes()
    assert (store.whole, store.ranges) == (1, [])


@pytest.mark.parametrize("damage", ["footer", "length", "shorter"])
def test_a_damaged_end_gives_nothing(tmp_path: Path, damage: str) -> None:
    """Whoever asks reads the file whole and gets the reason."""
    file, store = tmp_path / "a.parquet", Counting()
    write(file)
    entry, data = store.find(str(file)), bytearray(file.read_bytes())
    assert entry is not None
    match damage:
        case "footer":
            data[-200:-8] = bytes(192)
        case "length":
            data[-8:-4] = b"\xff\xff\xff\x7f"
        case "shorter":
            del data[-1000:]
    file.write_bytes(data)
    assert with_columns(store, entry, ["key"]) is None
