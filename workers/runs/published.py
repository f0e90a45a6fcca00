"""Read the published files of votes of a run, and check that they belong to it.

Files are read whole and hashed, but for two purposes: the figures at the end of a run, and `smoothcert status`. These
must be quick in a run of a hundred thousand shards, and fetch only the columns that they need.

Not covered: whether their content is right (pipeline/verify/); figures (pipeline/overview/, pipeline/query/).
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.files import FileEntry
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.iteration import map_ahead
from smoothcert.workers.runs.column_ranges import END_BYTES, WHOLE_BYTES, with_columns
from smoothcert.workers.runs.diaries import KnownFile, diaries_of, known_files
from smoothcert.workers.runs.file_hashes import footer_sha256
from smoothcert.workers.runs.json_file import damaged, parse
from smoothcert.workers.runs.layout import VOTES
from smoothcert.workers.runs.records import FileMetadata, SuccessRecord
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import ABSENT, METADATA_KEY, matrix_of, schema

_LARGE_COLUMNS = {"votes", "margins"}
_READERS = 8  # S3 answers a read after some 20 ms; each may hold a large file
RANGE_READERS = 16  # at most the connections of s3_store.py


@dataclass(frozen=True)
class PublishedFile:
    """The file of votes of one shard.

    Attributes:
        name: relative to the run.
        sha256: of the file's bytes, in hex.
        metadata: what the file records about itself.
        rows: the requested columns, dictionaries as plain strings.
    """

    name: str
    sha256: str
    metadata: FileMetadata
    rows: pa.Table


def read_published(run: Run, columns: Sequence[str], names: Sequence[str] | None = None) -> Iterator[PublishedFile]:
    """Yield published files.

    Damage is never read as votes: _SUCCESS of a complete run has the hash of each file, and every page of a file has a
    checksum.

    Args:
        run: the run.
        columns: of the table of votes.
        names: of the files to read, in this order; None: all that are published, in the order of the run's shards.
    Raises:
        RequestError: run.json is damaged.
        RunError: a file is damaged, or belongs to another run.
    """
    success = run.success()
    read = partial(
        _read,
        run,
        columns=columns,
        expected=_schema_of(run),
        hashes=None if success is None else success.files,
    )
    if names is None:
        names = [task.file_name for task in run.published_tasks()]
    yield from map_ahead(read, names, threads=_READERS, count=_READERS)


def read_figures(run: Run, columns: Sequence[str]) -> Iterator[PublishedFile]:
    """Yield published files in the order of the run's shards, and of most of them fetch the columns alone.

    A file is read whole if the run is complete, because _SUCCESS then has the hash that it must have. It is also read
    whole if no diary knows its hash: its driver was killed, or still works. Of any other file the hash is that of what
    was written, not of what is there now. So damage to the columns that are not fetched is found by whoever reads them,
    or reads the file whole.

    Args, Raises: as for `read_published`.
    """
    success = run.success()
    known = known_files(diaries_of(run)) if success is None else {}
    read = partial(
        _read_known,
        run,
        columns=columns,
        expected=_schema_of(run),
        known=known,
        hashes=None if success is None else success.files,
    )
    yield from map_ahead(read, _published_in_order(run), threads=RANGE_READERS, count=RANGE_READERS)


def read_columns(run: Run, columns: Sequence[str], files: Iterable[FileEntry]) -> Iterator[pa.Table]:
    """Yield columns of published files that need no hash, and fetch nothing else.

    Args:
        run: the run.
        columns: of the table of votes.
        files: of `Run.published_files`.
    Raises:
        RequestError, RunError: as by `read_published`.
    """
    expected = _schema_of(run)

    def read(entry: FileEntry) -> pa.Table:
        data = with_columns(run.store, entry, columns) or run.store.read(entry.url)
        return _file_of(run, entry.url, data, "", columns, expected).rows

    yield from map_ahead(read, files, threads=RANGE_READERS, count=RANGE_READERS)


def read_metadata(run: Run) -> Iterator[FileMetadata]:
    """Yield what each published file records about itself, and fetch only the ends of the files.

    Raises:
        RunError: a file is damaged, or belongs to another run.
    """
    entries = _published_in_order(run)
    yield from map_ahead(partial(_metadata_of, run), entries, threads=RANGE_READERS, count=RANGE_READERS)


def read_images(run: Run, columns: Sequence[str] | None = None) -> pa.Table:
    """A row per image of the published files; `Run.images` explains arguments and errors."""
    known = _schema_of(run).names
    if unknown := [name for name in columns or () if name not in known]:
        raise RequestError(f"columns: a run has no {unknown[0]!r}; it has {', '.join(known)}")
    if columns is None:
        columns = [name for name in known if name not in _LARGE_COLUMNS]
    tables = [file.rows for file in read_published(run, columns)]
    if not tables:
        raise run.no_files_yet()
    return pa.concat_tables(tables)


def read_votes(run: Run) -> NDArray[np.int32]:
    """[images, ablations]: the votes of the published files; `Run.votes` explains them."""
    column = read_images(run, ["votes"])["votes"]
    votes = np.full((len(column), column.type.list_size), ABSENT, np.int32)
    votes[pc.is_valid(column).to_numpy()] = matrix_of(column.drop_null())
    return votes


def _schema_of(run: Run) -> pa.Schema:
    """The columns that the run's files must have."""
    job, crop = run.job, run.job.preprocess.crop
    return schema(ablations_of(job.ablation, crop, crop).num_ablations, family_of(job.ablation))


def parse_metadata(data: bytes | bytearray, url: str) -> FileMetadata:
    """Read the metadata of a file of votes.

    Args:
        data: the file.
        url: of the file, for the error.
    Raises:
        RunError: the file is damaged, or is not a file of votes.
    """
    try:
        metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:  # what Arrow raises for damage
        raise RunError(damaged(url, error)) from None
    if METADATA_KEY not in metadata:
        raise RunError(damaged(url, "it has no metadata of smoothcert"))
    return parse(FileMetadata, metadata[METADATA_KEY], url)


def adopted_from(run: Run, success: SuccessRecord | None) -> dict[str, int]:
    """Number of published files whose rows come from another run, by the id of that run.

    Args:
        run: the run.
        success: its _SUCCESS, which says it; without it, the metadata of each file does.
    Raises:
        RunError: a file is damaged.
    """
    if success is not None:
        return success.adopted_from
    found = Counter[str]()
    for metadata in read_metadata(run):
        if metadata.adopted_from is not None:
            found[metadata.adopted_from.run_id] += 1
    return dict(found)


def _published_in_order(run: Run) -> list[FileEntry]:
    """The published files of the run's shards, in their order."""
    published = run.published_files()
    return [published[task.file_name] for task in run.tasks if task.file_name in published]


def _name_of(entry: FileEntry) -> str:
    return f"{VOTES}/{entry.url.rpartition('/')[2]}"


def _metadata_of(run: Run, entry: FileEntry) -> FileMetadata:
    """What a file records about itself, from the end of the file alone if that holds it."""
    end = run.store.read_range(entry.url, max(0, entry.size - END_BYTES), END_BYTES)
    try:
        metadata = parse_metadata(end, entry.url)
    except RunError:
        metadata = parse_metadata(run.store.read(entry.url), entry.url)
    _require_own(run, metadata, entry.url)
    return metadata


def _read(
    run: Run, name: str, *, columns: Sequence[str], expected: pa.Schema, hashes: Mapping[str, str] | None
) -> PublishedFile:
    url = f"{run.url}/{name}"
    data = run.store.read(url)
    sha256 = hashlib.sha256(data).hexdigest()
    if hashes is not None and hashes.get(name) != sha256:
        raise RunError(damaged(url, "its SHA-256 is not the one in _SUCCESS"))
    return _file_of(run, url, data, sha256, columns, expected)


def _read_known(
    run: Run,
    entry: FileEntry,
    *,
    columns: Sequence[str],
    expected: pa.Schema,
    known: Mapping[str, KnownFile],
    hashes: Mapping[str, str] | None,
) -> PublishedFile:
    """The columns alone, if the file's hash is known and it ends as it was written; else the file as it is."""
    name = _name_of(entry)
    if name in known and entry.size > WHOLE_BYTES:
        there = known[name].hashes
        data = with_columns(run.store, entry, columns)
        if data is not None and footer_sha256(data) == there.footer_sha256:
            return _file_of(run, entry.url, data, there.sha256, columns, expected)
    return _read(run, name, columns=columns, expected=expected, hashes=hashes)


def _file_of(
    run: Run, url: str, data: bytes | bytearray, sha256: str, columns: Sequence[str], expected: pa.Schema
) -> PublishedFile:
    metadata = parse_metadata(data, url)
    _require_own(run, metadata, url)
    rows = _as_strings(_read_rows(data, url, columns, expected))
    return PublishedFile(url.removeprefix(f"{run.url}/"), sha256, metadata, rows)


def _require_own(run: Run, metadata: FileMetadata, url: str) -> None:
    if metadata.run_id != run.run_id:
        raise RunError(damaged(url, f"it belongs to run {metadata.run_id}"))


def _read_rows(data: bytes | bytearray, url: str, columns: Sequence[str], expected: pa.Schema) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if (file.schema_arrow.names, file.schema_arrow.types) != (expected.names, expected.types):
            raise ValueError("its columns are not those of the job in run.json")
        # Neither use_threads nor a file object of Python (io.BytesIO): both start threads of Arrow. A thread that lets
        # go of a Python object while the process ends aborts it.
        return file.read(list(columns), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:  # what Arrow raises for damage
        raise RunError(damaged(url, error)) from None


def _as_strings(rows: pa.Table) -> pa.Table:
    """Decode dictionaries, which differ from file to file; strings can be concatenated."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(place, field.name, rows[field.name].cast(field.type.value_type))
    return rows.replace_schema_metadata(None)
