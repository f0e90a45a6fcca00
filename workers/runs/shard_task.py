"""What driver and workers say to each other. Light: the driver loads no torch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.shards import Shard
from smoothcert.workers.runs.layout import votes_file
from smoothcert.workers.tars.labels import LabelCounts


@dataclass(frozen=True)
class ShardTask:
    """A shard to certify: its place in the run, and how many of its images count (None for all)."""

    index: int
    shard: Shard
    limit: int | None

    @property
    def file_name(self) -> str:
        return votes_file(self.index, self.shard.name)


@dataclass(frozen=True)
class TriedOut:
    """What came of the first images of a shard, of which nothing is published.

    Attributes:
        statuses: number of rows of each status.
        first_without_votes: key and reason of the first image that has none.
        labels: what their labels are like; of no images in a job without labels.
        notices: what else the user should know of the job, a line each.
    """

    statuses: Counter[str]
    first_without_votes: str | None
    labels: LabelCounts
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Introduction:
    """What an actor says of itself before its first shard, so that the driver can tell whether all vote alike.

    Attributes:
        node: name of its machine.
        environment: versions, decoder and device, as recorded with every file.
        votes_version: of its code.
        logits: [classes] float32, of an image that is the same everywhere.
    """

    node: str
    environment: Mapping[str, Any]
    votes_version: int
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class ShardReport:
    """What the driver hears of a finished shard.

    Attributes:
        task: the shard.
        statuses: number of rows of each status.
        seconds: from fetching the tar to the published file.
        turn_s: of these, those in which the model was this shard's.
        waited_s: of these, spent waiting for decoded images.
        published: False where another writer was first.
        node: name of the machine.
    """

    task: ShardTask
    statuses: dict[str, int]
    seconds: float
    turn_s: float
    waited_s: float
    published: bool
    node: str

    @property
    def rows(self) -> int:
        return sum(self.statuses.values())
