"""A tar on this machine: fetched once, whatever is done with it.

Not covered: its samples (shard_reader.py) and their pixels (pixels.py).
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import Images
from smoothcert.manifests.shards import Shard
from smoothcert.workers.storage.store import Store, sha256_of
from smoothcert.workers.tars.tar_headers import TarContents, read_tar


@dataclass(frozen=True)
class FetchedShard:
    """A shard on this machine.

    Attributes:
        tar: the local file.
    """

    tar: Path
    _contents: dict[Images, TarContents] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the tar, in hex."""
        return sha256_of(self.tar)

    def contents(self, images: Images) -> TarContents:
        """What the headers say. They are checked once for all who call the same members images and labels.

        Raises:
            ShardError: the tar cannot be read whole.
        """
        if images not in self._contents:
            self._contents[images] = read_tar(self.tar, images)
        return self._contents[images]


@contextmanager
def fetched(shard: Shard, store: Store) -> Iterator[FetchedShard]:
    """Fetch a shard. At the end, check that nobody changed it meanwhile.

    Args:
        shard: as planned.
        store: holds the shard.
    Raises:
        ShardError: the tar is missing, or changed since the plan.
    """
    _require_unchanged(shard, store)
    with store.local(shard.url) as tar:
        if tar.stat().st_size != shard.size:
            raise _changed(shard, tar.stat().st_size)
        yield FetchedShard(tar)
        _require_unchanged(shard, store)


def _require_unchanged(shard: Shard, store: Store) -> None:
    entry = store.find(shard.url)
    if entry is None:
        raise ShardError(f"{shard.url} is gone, or not on {platform.node()}; restore it")
    if (entry.size, entry.fingerprint) != (shard.size, shard.fingerprint):
        raise _changed(shard, entry.size)


def _changed(shard: Shard, size: int) -> ShardError:
    return ShardError(
        f"{shard.url} changed since the run was planned ({shard.size} bytes then, {size} now); "
        "run the command again (another size makes another run)"
    )


@contextmanager
def naming(shard: Shard) -> Iterator[None]:
    """Put the shard's name before the text of a ShardError."""
    try:
        yield
    except ShardError as error:
        raise ShardError(f"shard {shard.name}: {error}") from None
