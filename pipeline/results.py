"""The published files of a run, read and checked to be this run's.

Not covered: whether their content is right (verify.py), what it amounts to (summary.py, query.py).
"""

import hashlib
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import RunError
from pipeline.plan import Run, damaged
from workers.votes_table import read_metadata

_AT_ONCE = 8  # S3 answers a read after some 20 ms


@dataclass(frozen=True)
class PublishedFile:
    """One shard's file.

    Attributes:
        name: relative to the run.
        sha256: of the file's bytes, in hex.
        metadata: what it says of itself.
        rows: the columns asked for, dictionaries as plain strings.
    """

    name: str
    sha256: str
    metadata: dict[str, Any]
    rows: pa.Table


def read_published(run: Run, columns: Sequence[str]) -> Iterator[PublishedFile]:
    """The files that are there, in the order of the run's shards.

    Args:
        run: the run.
        columns: of the table of votes.
    Raises:
        RunError: a file is damaged, or belongs to another run.
    """
    published = run.published()
    names = (task.file_name for task in run.tasks if task.file_name in published)
    with ThreadPoolExecutor(_AT_ONCE) as readers:
        reading = deque(readers.submit(_read, run, name, columns) for name in islice(names, 2 * _AT_ONCE))
        while reading:
            yield reading.popleft().result()
            reading.extend(readers.submit(_read, run, name, columns) for name in islice(names, 1))


def _read(run: Run, name: str, columns: Sequence[str]) -> PublishedFile:
    data = run.store.read(f"{run.url}/{name}")
    try:
        metadata = read_metadata(io.BytesIO(data))
        run_id = metadata["run_id"]
        # Without Arrow's threads: a process that ends at once has been seen to abort on them.
        rows = pq.ParquetFile(io.BytesIO(data)).read(list(columns), use_threads=False)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(damaged(f"{run.url}/{name}", error)) from None
    if run_id != run.run_id:
        raise RunError(
            f"{run.url}/{name} belongs to run {run_id}; `smoothcert repair` the run, then run the same command again"
        )
    return PublishedFile(name, hashlib.sha256(data).hexdigest(), metadata, _plain(rows))


def _plain(rows: pa.Table) -> pa.Table:
    """Each file has dictionaries of its own: strings can be put together."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(place, field.name, rows[field.name].cast(field.type.value_type))
    return rows.replace_schema_metadata(None)
