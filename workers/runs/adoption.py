"""Takes the file of a shard over from another run, instead of computing the same votes again.

The other run has an equal votes identity (manifests/identity.py), and its file comes from a tar of the same SHA-256. So
its rows are those that this run would get. The file is written again with the metadata of this run, and says where its
rows come from.

Not covered: which runs may have such a file (pipeline/certify/sources.py); checking it afterwards (pipeline/verify/).
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.manifests.errors import SmoothcertError
from smoothcert.manifests.identity import VOTES_VERSION
from smoothcert.workers.runs import votes_table
from smoothcert.workers.runs.environment import environment_of
from smoothcert.workers.runs.file_hashes import hashes_of
from smoothcert.workers.runs.publication import Published, require_same_images
from smoothcert.workers.runs.published import parse_metadata
from smoothcert.workers.runs.records import AdoptedFrom, FileMetadata, ShardFileRecord
from smoothcert.workers.runs.run import find_run
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.storage.store import Store


@dataclass(frozen=True)
class Source:
    """A file of another run whose rows may be those of a shard.

    Attributes:
        run_id, run_url: of the other run.
        file: its name, relative to that run.
    """

    run_id: str
    run_url: str
    file: str


class Adopted(NamedTuple):
    """A file that was taken over.

    Attributes:
        run_id: of the run that it was taken over from.
        statuses: number of rows of each status.
        file: what the run holds now.
    """

    run_id: str
    statuses: dict[str, int]
    file: Published


@dataclass(frozen=True)
class Adoption:
    """Takes files over into a run.

    Attributes:
        run_id, run_url: of the run that takes over.
        store: holds both runs.
        environment: versions, decoder and device of this machine.
        schema: the columns of the run.
        across: whether files of other versions and devices may be taken over.
    """

    run_id: str
    run_url: str
    store: Store
    environment: Mapping[str, Any]
    schema: pa.Schema
    across: bool = False

    def adopt(self, task: ShardTask, source: Source, tar_sha256: str) -> Adopted | None:
        """Publish the rows of the source as the file of the shard.

        Args:
            task: the shard.
            source: the file to take over.
            tar_sha256: of the shard's tar, in hex.
        Returns:
            What was taken over; None if the source does not fit or is damaged.
        Raises:
            ShardError: another writer's file holds other images.
        """
        found = self._read(source, tar_sha256)
        if found is None:
            return None
        rows, metadata, origin = found
        if task.limit is None and task.shard.images not in (None, len(rows)):
            return None  # the index file lists another number of images: the shard fails in its own turn
        shard = ShardFileRecord(name=task.shard.name, size=task.shard.size, fingerprint=task.shard.fingerprint)
        described = metadata.model_copy(update={"run_id": self.run_id, "shard": shard, "adopted_from": origin})
        data = votes_table.as_file(rows, described)
        if self.store.publish(self.run_url, task.file_name, data):
            file = Published(True, hashes_of(data))
        else:
            images = rows.select(["key", "sha256"]).to_pylist()
            file = Published(False, require_same_images(self.store, self.run_url, self.run_id, task, images))
        return Adopted(source.run_id, dict(Counter(rows["status"].to_pylist())), file)

    def _read(self, source: Source, tar_sha256: str) -> tuple[pa.Table, FileMetadata, AdoptedFrom] | None:
        """The rows and the metadata of a source that fits. A damaged one is as good as none."""
        url = f"{source.run_url}/{source.file}"
        try:
            run = find_run(source.run_url, self.store)
            if run is None:  # prune has begun with it
                return None
            success = run.success()
            data = self.store.read(url)
            metadata = parse_metadata(data, url)
            if metadata.run_id != source.run_id or not self._fits(metadata, tar_sha256):
                return None
            rows = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)
            if not rows.schema.equals(self.schema) or votes_table.columns_sha256(rows) != metadata.columns_sha256:
                return None  # columns differ in files of other versions
        except (SmoothcertError, pa.ArrowException, OSError, ValueError):
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        if success is not None and success.files.get(source.file) != sha256:
            return None
        return rows, metadata, AdoptedFrom(run_id=source.run_id, file=source.file, sha256=sha256)

    def _fits(self, metadata: FileMetadata, tar_sha256: str) -> bool:
        """Whether the rows come from the same tar and, unless `across`, from code and a device like ours."""
        if metadata.shard_sha256 != tar_sha256:
            return False
        ours, its = environment_of(self.environment), environment_of(metadata.environment)
        return self.across or (metadata.votes_version == VOTES_VERSION and its == ours)
