"""What a fleet tells its driver while it works."""

from dataclasses import dataclass

from smoothcert.workers.runs.shard_task import Introduction, ShardReport, ShardTask


@dataclass(frozen=True)
class Beat:
    """An actor has done so many images of its shard."""

    task: ShardTask
    images: int


@dataclass(frozen=True)
class Failure:
    """A shard that is given up; `reason` is one line."""

    task: ShardTask
    reason: str


@dataclass(frozen=True)
class Requeued:
    """A shard that goes back to the queue; `reason` is one line."""

    task: ShardTask
    reason: str


@dataclass(frozen=True)
class FoundPublished:
    """A shard that another driver has published."""

    task: ShardTask


Event = Introduction | Beat | ShardReport | Failure | Requeued | FoundPublished
