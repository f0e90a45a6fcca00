"""What driver and workers say to each other about a shard. Light: the driver loads no torch."""

from dataclasses import dataclass

from manifests.shards import Shard


@dataclass(frozen=True)
class ShardTask:
    """A shard to certify: its place in the run, and how many of its images count (None for all)."""

    index: int
    shard: Shard
    limit: int | None

    @property
    def file_name(self) -> str:
        return f"votes/{self.index:05d}-{self.shard.name.removesuffix('.tar')}.parquet"


@dataclass(frozen=True)
class ShardReport:
    """What the driver hears of a finished shard.

    Attributes:
        task: the shard.
        statuses: number of rows of each status.
        seconds: from opening the tar to the published file.
        published: False where another writer was first.
    """

    task: ShardTask
    statuses: dict[str, int]
    seconds: float
    published: bool

    @property
    def rows(self) -> int:
        return sum(self.statuses.values())
