"""How many images of each shard count under images.limit: the first ones, in the order of the shards."""

from collections.abc import Sequence

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import Images
from smoothcert.manifests.shards import Shard
from smoothcert.workers.storage.store import Store
from smoothcert.workers.tars.tar_headers import read_tar


def limits_of(shards: Sequence[Shard], images: Images, store: Store) -> list[int] | None:
    """Count images in the headers of the tars until the limit is reached.

    Args:
        shards: the tars of a job, in order.
        images: of the job.
        store: that holds the tars.
    Returns:
        The number of images of each shard that count, or None if all do: there is no limit, or it is not exceeded.
    Raises:
        ShardError: the images of a tar cannot be counted.
    """
    if images.limit is None:
        return None
    remaining = images.limit
    limits: list[int] = []
    for shard in shards:
        if remaining == 0:
            return limits + [0] * (len(shards) - len(limits))
        count = _count(shard, images, store)
        limits.append(min(count, remaining))
        if count > remaining:
            return limits + [0] * (len(shards) - len(limits))
        remaining -= count
    return None


def _count(shard: Shard, images: Images, store: Store) -> int:
    try:
        with store.local(shard.url) as tar:
            return len(read_tar(tar, images).images)
    except ShardError as error:
        raise ShardError(f"images.limit: cannot count the images of {shard.name}: {error}") from None
