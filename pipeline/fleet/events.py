"""What a fleet reports to its driver while it works. Light: loads no ray."""

from dataclasses import dataclass

from smoothcert.workers.runs.shard_task import Introduction, Refusal, ShardReport, ShardTask


@dataclass(frozen=True)
class Beat:
    """A batch is done; `images` counts the images of the shard that are done by now."""

    task: ShardTask
    images: int


@dataclass(frozen=True)
class Failure:
    """A shard fails for good in the runs that lack it; `reason` is one line."""

    task: ShardTask
    reason: str
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requeued:
    """A shard goes back to the queue for the runs that lack it; `reason` is one line."""

    task: ShardTask
    reason: str
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundPublished:
    """Another driver has published the shard in these runs."""

    task: ShardTask
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class CannotStart:
    """An actor cannot start; `reason` is one line that was not reported before."""

    reason: str


Event = Introduction | Refusal | Beat | ShardReport | Failure | Requeued | FoundPublished | CannotStart
