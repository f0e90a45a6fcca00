"""Which shards other drivers have published by now, from listings that are used for a while.

A listing names 1,000 files per request; a question about each shard would take a request per shard. While a listing is
in use, another driver may publish a shard that we then hand out. Nothing breaks, because only the first of two files of
a shard is kept (workers/storage/), but the work on that shard is wasted. So a listing is used for a few seconds only,
or longer if the run is so large that its listing takes long: the driver waits for it.

Not covered: who asks (fleet.py).
"""

import time
from collections.abc import Callable, Collection

from smoothcert.workers.runs.shard_task import ShardTask

USED_S = 5.0
USED_PER_LISTING = 30.0  # times as long as it took: the driver spends at most a 30th of its time on listings


class Seen:
    """What of a run was published when it was last listed.

    Args:
        published: lists the names of the published files.
    """

    def __init__(self, published: Callable[[], Collection[str]]) -> None:
        self._published = published
        self._names: Collection[str] = ()
        self._until = float("-inf")

    def has(self, task: ShardTask) -> bool:
        """Whether the shard was published a moment ago."""
        began = time.monotonic()
        if began >= self._until:
            self._names = self._published()
            ended = time.monotonic()
            self._until = ended + max(USED_S, USED_PER_LISTING * (ended - began))
        return task.file_name in self._names
