"""The published files of a run, read and checked to be this run's.

Not covered: whether their content is right (pipeline/verify/), and what it amounts to (pipeline/overview/,
pipeline/query/).
"""

import hashlib
import io
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.manifests.errors import RunError
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.runs.run import Run, damaged
from smoothcert.workers.runs.votes_table import read_metadata, schema

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

    A file is what it was when it was published: its hash is that of _SUCCESS, or its pages have their checksums.

    Args:
        run: the run.
        columns: of the table of votes.
    Raises:
        RequestError: run.json is damaged.
        RunError: a file is damaged, or belongs to another run.
    """
    success, crop = run.success(), run.job.preprocess.crop
    read = partial(
        _read,
        run,
        columns=columns,
        expected=schema(ablations_of(run.job.ablation, crop, crop).num_ablations, family_of(run.job.ablation)),
        hashes=None if success is None else success["files"],
    )
    published = run.published()
    names = (task.file_name for task in run.tasks if task.file_name in published)
    with ThreadPoolExecutor(_AT_ONCE) as readers:
        reading = deque(readers.submit(read, name) for name in islice(names, 2 * _AT_ONCE))
        while reading:
            yield reading.popleft().result()
            reading.extend(readers.submit(read, name) for name in islice(names, 1))


def _read(
    run: Run, name: str, *, columns: Sequence[str], expected: pa.Schema, hashes: Mapping[str, str] | None
) -> PublishedFile:
    data = run.store.read(f"{run.url}/{name}")
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        if hashes is not None and hashes.get(name) != sha256:
            raise ValueError("its SHA-256 is not the one in _SUCCESS")
        metadata = read_metadata(io.BytesIO(data))
        if metadata["run_id"] != run.run_id:
            raise ValueError(f"it belongs to run {metadata['run_id']}")
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        if (file.schema_arrow.names, file.schema_arrow.types) != (expected.names, expected.types):
            raise ValueError("its columns are not those of the job in run.json")
        # Without Arrow's threads: a process that ends at once has been seen to abort on them.
        rows = file.read(list(columns), use_threads=False)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(damaged(f"{run.url}/{name}", error)) from None
    return PublishedFile(name, sha256, metadata, _plain(rows))


def _plain(rows: pa.Table) -> pa.Table:
    """Each file has dictionaries of its own: strings can be put together."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(place, field.name, rows[field.name].cast(field.type.value_type))
    return rows.replace_schema_metadata(None)
