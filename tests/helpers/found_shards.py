"""What `find_shards` finds in a folder, and what it says."""

from pathlib import Path

from smoothcert.manifests.job import Images
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.storage.store import FolderStore


def names(folder: Path, *specs: str, split: str | None = None) -> list[str]:
    """The tars that specs below a folder mean, without their suffix; each has 4 bytes."""
    shards = [str(folder / spec) for spec in specs]
    found = find_shards(Images(shards=shards if len(shards) > 1 else shards[0], split=split), FolderStore())
    assert all(shard.size == 4 and shard.fingerprint for shard in found)
    return [shard.name.removesuffix(".tar") for shard in found]


def notices(folder: Path, *specs: str, split: str | None = None) -> list[str]:
    """The lines about what is not read."""
    heard: list[str] = []
    shards = [str(folder / spec) for spec in specs]
    find_shards(Images(shards=shards, split=split), FolderStore(), heard.append)
    return heard
