"""Fetches some columns of a Parquet file without the rest of it, in as few requests as that takes.

Votes and margins are nearly all of a file. The columns that figures need lie before and behind them:

    file      key ... status, label, prediction | votes, margins | largest certified patches, footer
    requests  [         2, up to `prediction`   ]                 [1, the end                        ]

Not covered: what is in the columns (votes_table.py); whether the rest is undamaged (published.py).
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.manifests.files import FileEntry
from smoothcert.workers.runs.file_hashes import footer_bytes
from smoothcert.workers.storage.store import Store

END_BYTES = 64 * 1024  # the footer of a file of votes has some 10 kB
WHOLE_BYTES = 512 * 1024  # a request takes about as long as this many bytes: leaving out fewer gains nothing
GAP_BYTES = WHOLE_BYTES  # nor does leaving out so few between two columns


class _Range(NamedTuple):
    start: int
    end: int


def with_columns(store: Store, entry: FileEntry, columns: Collection[str]) -> bytearray | None:
    """The file, with zeros in place of what the columns and the footer do not need.

    Zeros that are not written to take no memory. A page has a checksum, so no reader takes zeros for values.

    Args:
        store: holds the file.
        entry: the file.
        columns: to fetch.
    Returns:
        Bytes of the length of the file, all of them there if it is small; None if its footer cannot be read: read it
        whole to learn why.
    """
    if entry.size <= WHOLE_BYTES:
        return bytearray(store.read(entry.url))
    data = bytearray(entry.size)
    there = max(0, entry.size - END_BYTES)  # the bytes from here on are there
    try:
        _fetch(store, entry.url, data, _Range(there, entry.size))
        if footer_bytes(data) > END_BYTES:
            _fetch(store, entry.url, data, _Range(max(0, entry.size - footer_bytes(data)), there))
            there = max(0, entry.size - footer_bytes(data))
        metadata = pq.read_metadata(pa.BufferReader(data))
        for part in _joined(sorted(_ranges(metadata, columns))):
            if part.start < there:
                _fetch(store, entry.url, data, _Range(part.start, min(part.end, there)))
    except (pa.ArrowException, OSError, ValueError):  # what Arrow raises for damage
        return None
    return data


def _fetch(store: Store, url: str, data: bytearray, part: _Range) -> None:
    found = store.read_range(url, part.start, part.end - part.start)
    if len(found) != part.end - part.start:
        raise ValueError(f"{url} is shorter than its listing says")
    data[part.start : part.end] = found


def _ranges(metadata: pq.FileMetaData, columns: Collection[str]) -> Iterator[_Range]:
    """Where the values of the columns lie."""
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            if column.path_in_schema.partition(".")[0] in columns:
                start = column.data_page_offset
                if column.has_dictionary_page and column.dictionary_page_offset is not None:
                    start = min(start, column.dictionary_page_offset)
                yield _Range(start, start + column.total_compressed_size)


def _joined(parts: list[_Range]) -> Iterator[_Range]:
    """Sorted ranges, with those in one that lie so near to each other that another request takes longer."""
    parts = [*parts]
    while parts:
        start, end = parts.pop(0)
        while parts and parts[0].start - end <= GAP_BYTES:
            end = max(end, parts.pop(0).end)
        yield _Range(start, end)
