"""Publishes the file of a shard, once: rows -> table -> file of a run.

If another writer published the shard first, its file stays, and ours is dropped if both hold the same images.
Votes may differ: machines of two kinds may disagree where margins are tiny.

Not covered: the columns (votes_table.py); reading what is published (published.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.identity import VOTES_VERSION
from smoothcert.manifests.job import Job
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.runs import votes_table
from smoothcert.workers.runs.file_hashes import FileHashes, hashes_of
from smoothcert.workers.runs.published import parse_metadata
from smoothcert.workers.runs.records import FileMetadata, ShardFileRecord
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.runs.votes_table import Row
from smoothcert.workers.storage.store import Store
from smoothcert.workers.tars.tar_headers import LeftOut


class TarFacts(NamedTuple):
    """What a file records about its whole tar.

    Attributes:
        sha256: of the tar, in hex.
        left_out: what the tar holds that is not in the run.
        rotated_images: images whose EXIF orientation says that the stored pixels are not upright.
    """

    sha256: str
    left_out: LeftOut
    rotated_images: int


class Published(NamedTuple):
    """A file of votes that is there.

    Attributes:
        ours: False if another writer was first.
        hashes: of the file.
    """

    ours: bool
    hashes: FileHashes


@dataclass(frozen=True)
class Publication:
    """Where the files of a run go, and what all files of this machine record about themselves.

    Attributes:
        job: of the run.
        run_id, run_url: of the run.
        store: holds the run.
        num_ablations: votes per image.
        images_per_batch: images that were voted on together.
        environment: versions, decoder and device.
    """

    job: Job
    run_id: str
    run_url: str
    store: Store
    num_ablations: int
    images_per_batch: int
    environment: Mapping[str, Any]

    def publish(self, task: ShardTask, rows: Sequence[Row], tar: TarFacts, *, seconds: float) -> Published:
        """Publish a shard, unless another writer did.

        Args:
            task: the shard.
            rows: all of them, in tar order.
            tar: the tar that they come from.
            seconds: from fetching the tar to the certificates.
        Returns:
            What the run holds now.
        Raises:
            ShardError: the other writer's file holds other images.
        """
        family, metadata = family_of(self.job.ablation), self._metadata(task, tar, seconds)
        data = votes_table.encode(rows, self.num_ablations, family, metadata)
        if self.store.publish(self.run_url, task.file_name, data):
            return Published(True, hashes_of(data))
        images = [{"key": row.key, "sha256": row.sha256} for row in rows]
        return Published(False, require_same_images(self.store, self.run_url, self.run_id, task, images))

    def _metadata(self, task: ShardTask, tar: TarFacts, seconds: float) -> FileMetadata:
        return FileMetadata(
            run_id=self.run_id,
            shard=ShardFileRecord(name=task.shard.name, size=task.shard.size, fingerprint=task.shard.fingerprint),
            shard_sha256=tar.sha256,
            votes_version=VOTES_VERSION,
            geometry={**self.job.ablation.model_dump(), "crop": self.job.preprocess.crop},
            images_per_batch=self.images_per_batch,
            **tar.left_out.as_json(),
            rotated_images=tar.rotated_images,
            seconds=round(seconds, 3),
            **self.environment,
        )


def require_same_images(
    store: Store, run_url: str, run_id: str, task: ShardTask, images: Sequence[Mapping[str, Any]]
) -> FileHashes:
    """Check that the file that another writer published holds the same images.

    Args:
        store: holds the run.
        run_url, run_id: of the run.
        task: the shard.
        images: `key` and `sha256` of each.
    Returns:
        The hashes of that file.
    Raises:
        ShardError: it holds others.
    """
    url = f"{run_url}/{task.file_name}"
    data = store.read(url)
    there = pq.ParquetFile(pa.BufferReader(data)).read(["key", "sha256"], use_threads=False).to_pylist()
    if parse_metadata(data, url).run_id != run_id or there != images:
        raise ShardError(f"{url} is there already, with other images; move it away")
    return hashes_of(data)
