"""Check one file of votes: its bytes, its columns, its metadata, then its rows.

Not covered: what a row may say (rows.py); how the checksum is made (checksum.py); several files (processes.py).
"""

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from smoothcert.manifests.job import Storage
from smoothcert.pipeline.verify.adopted import Adopted
from smoothcert.pipeline.verify.checksum import columns_sha256
from smoothcert.pipeline.verify.figures import CERTIFIED_COLUMNS, MAX_COLUMNS, Totals
from smoothcert.pipeline.verify.findings import Finding, limit_findings, shown
from smoothcert.pipeline.verify.masks import Masks
from smoothcert.pipeline.verify.record import (
    CheckedRun,
    RecordedJob,
    RecordedShard,
    SuccessRecord,
    parse_json,
    reason_of,
    same_json,
)
from smoothcert.pipeline.verify.rows import REQUIRED, check_rows
from smoothcert.workers.storage.store import AnyStore

METADATA_KEY = b"smoothcert"


class FileMetadata(BaseModel):
    """What a file says about itself. Entries have any type: an unexpected one is a finding, not an error."""

    model_config = ConfigDict(frozen=True)

    run_id: Any
    columns_sha256: Any = None
    geometry: Any = None
    votes_version: Any = None
    shard: Any = None
    shard_sha256: Any = None
    adopted_from: Any = None

    @classmethod
    def of(cls, schema: pa.Schema) -> "FileMetadata":
        """The metadata of a file of votes.

        Raises:
            ValueError: there is none, or it is not a JSON object.
        """
        return cls.model_validate(parse_json((schema.metadata or {}).get(METADATA_KEY, b"")))

    @property
    def adopted(self) -> Adopted | None:
        """What the file says about the run that its rows come from."""
        if self.adopted_from is None:
            return None
        return Adopted(self.adopted_from, self.shard_sha256, self.columns_sha256, self.votes_version)


@dataclass(frozen=True)
class FileTask:
    """A file to check, with all that its check needs, so that any process can do it.

    Attributes:
        name: of the file, relative to the run.
        run_url, storage: where the run is, and how to reach it.
        run_id, votes_version, job, shard: what run.json says.
        has_success: _SUCCESS is there and can be read.
        sha256: of the file, according to _SUCCESS.
    """

    name: str
    run_url: str
    storage: Storage
    run_id: str
    votes_version: Any
    job: RecordedJob
    shard: RecordedShard
    has_success: bool
    sha256: Any

    @classmethod
    def of(cls, run: CheckedRun, name: str, success: SuccessRecord | None) -> "FileTask":
        """The check of one file of a run."""
        return cls(
            name,
            run.url,
            run.storage,
            run.record.run_id,
            run.record.votes_version,
            run.job,
            run.shards[name],
            has_success=success is not None,
            sha256=None if success is None else success.files.get(name),
        )


@dataclass(frozen=True)
class CheckedFile:
    """The result of checking a file.

    Attributes:
        name: of the file.
        findings: what is wrong with it.
        totals: what its rows add up to; None if they could not be read.
        voted: positions of the rows with a prediction; an array, for there may be a million.
        adopted: what it says about the run that its rows come from; None if they were computed for this run.
    """

    name: str
    findings: tuple[Finding, ...]
    totals: Totals | None = None
    voted: Sequence[int] = ()
    adopted: Adopted | None = None


def check_file(task: FileTask) -> CheckedFile:
    """Find everything that is wrong with one file. If it is unreadable or of another run, report only that.

    Raises:
        RequestError: the storage does not answer.
    """
    data = AnyStore(task.storage).read(f"{task.run_url}/{task.name}")
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            table = file.read(use_threads=False)
        table.validate(full=True)
        metadata = FileMetadata.of(table.schema)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names that are not UTF-8, wrong metadata
        return CheckedFile(task.name, (Finding(task.name, f"cannot be read as a file of votes ({reason_of(error)})"),))
    if metadata.run_id != task.run_id:
        return CheckedFile(task.name, (Finding(task.name, f"belongs to run {shown(metadata.run_id)}"),))
    findings = [*_check_hash(task, data), *_check_schema(task, table.schema)]
    expected = votes_schema(task.job)
    if (table.schema.names, table.schema.types) != (expected.names, expected.types):
        return CheckedFile(task.name, tuple(findings))
    findings += [*_check_metadata(task, metadata, table), *_check_length(task, len(table))]
    totals = Totals()
    findings += limit_findings(task.name, check_rows(task.job, task.shard, task.name, table, totals))
    voted = np.flatnonzero(table["prediction"].is_valid().to_numpy()).tolist()
    return CheckedFile(task.name, tuple(findings), totals, array("I", voted), metadata.adopted)


def votes_schema(job: RecordedJob) -> pa.Schema:
    """The columns of votes."""
    num_ablations = job.ablations.num_ablations
    text, number = pa.dictionary(pa.int32(), pa.string()), pa.int32()
    types = {"key": pa.string(), "shard": text, "index": number, "image_offset": pa.int64(), "image_bytes": number}
    types |= {"sha256": pa.binary(32), "status": text, "error": pa.string()}
    types |= dict.fromkeys(("label", "width", "height", "clean_prediction"), number) | {"clean_margin": pa.float32()}
    types |= dict.fromkeys(("prediction", "count", "runner_up", "runner_up_count"), number)
    types |= {"votes": pa.list_(pa.uint16(), num_ablations), "margins": pa.list_(pa.float32(), num_ablations)}
    types |= dict.fromkeys(MAX_COLUMNS, number)
    if isinstance(job.ablations, Masks):
        types |= dict.fromkeys(CERTIFIED_COLUMNS, pa.bool_())
    return pa.schema([pa.field(name, kind, nullable=name not in REQUIRED) for name, kind in types.items()])


def _check_hash(task: FileTask, data: bytes) -> Iterator[Finding]:
    sha256 = hashlib.sha256(data).hexdigest()
    if task.has_success and task.sha256 != sha256:
        yield Finding(task.name, f"its SHA-256 is {sha256}, _SUCCESS says {shown(task.sha256)}")


def _check_schema(task: FileTask, found: pa.Schema) -> Iterator[Finding]:
    expected = votes_schema(task.job)
    if found.names != expected.names:
        yield Finding(task.name, f"are {found.names}, expected {expected.names}", "columns")
        return
    for one, other in zip(found, expected, strict=True):
        if not one.equals(other):
            kinds = [f"{each.type}{'' if each.nullable else ' not null'}" for each in (one, other)]
            yield Finding(task.name, f"is {kinds[0]}, expected {kinds[1]}", column=one.name)


def _check_metadata(task: FileTask, metadata: FileMetadata, table: pa.Table) -> Iterator[Finding]:
    described = metadata.shard if isinstance(metadata.shard, dict) else {}
    geometry = task.job.ablation.model_dump() | {"crop": task.job.preprocess.crop}
    is_adopted = metadata.adopted is not None and type(metadata.votes_version) is int  # perhaps across versions
    expected_version = metadata.votes_version if is_adopted else task.votes_version
    for entry, found, expected in (
        ("columns_sha256", metadata.columns_sha256, columns_sha256(table)),
        ("geometry", metadata.geometry, geometry),
        ("votes_version", metadata.votes_version, expected_version),
        ("shard", [described.get("name"), described.get("size")], [task.shard.name, task.shard.size]),
    ):
        if not same_json(found, expected):
            yield Finding(task.name, f"is {shown(found)}, expected {shown(expected)}", f"metadata {entry}")
    if not re.fullmatch("[0-9a-f]{64}", str(metadata.shard_sha256)):
        yield Finding(task.name, f"is {shown(metadata.shard_sha256)}, expected 64 hex digits", "metadata shard_sha256")


def _check_length(task: FileTask, rows: int) -> Iterator[Finding]:
    limit = task.shard.limit
    if rows != (limit or max(rows, 1)):
        yield Finding(task.name, f"has {rows} rows, expected {limit or 'at least one'}")
