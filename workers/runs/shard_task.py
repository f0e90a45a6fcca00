"""Messages between the driver and its actors. Loads no torch, because the driver does not."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.shards import Shard
from smoothcert.workers.runs.file_hashes import FileHashes
from smoothcert.workers.runs.layout import votes_file
from smoothcert.workers.tars.label_counts import LabelCounts


@dataclass(frozen=True)
class ShardTask:
    """A shard to certify.

    Attributes:
        index: its position in the run.
        shard: the tar.
        limit: number of its images that are in the run; None for all.
    """

    index: int
    shard: Shard
    limit: int | None

    @property
    def file_name(self) -> str:
        """The name of its published file, relative to the run."""
        return votes_file(self.index, self.shard.name)

    @property
    def known_images(self) -> int | None:
        """Number of its images that are in the run, if a limit or an index file gives it."""
        return self.shard.images if self.limit is None else self.limit


@dataclass(frozen=True)
class TriedOut:
    """What the model says about the first images of a shard. None of this is published.

    Attributes:
        statuses: number of rows of each status.
        first_without_votes: key and reason of the first image without votes; None if all have votes.
        labels: counts of their labels; empty in a job without labels.
        notices: lines about the job that the user should read.
    """

    statuses: Counter[str]
    first_without_votes: str | None
    labels: LabelCounts
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Introduction:
    """What an actor says about itself before it votes for a run. The driver checks with it that all actors vote alike.

    Attributes:
        run_id: the run.
        node: name of its machine.
        environment: versions, decoder and device, as recorded with every file.
        votes_version: of its code.
        logits: [classes] float32, of an image that is the same on every machine.
    """

    run_id: str
    node: str
    environment: Mapping[str, Any]
    votes_version: int
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Refusal:
    """An actor cannot work for a run, because the request is wrong; it works on for the other runs.

    Attributes:
        run_id: the run.
        reason: one line.
    """

    run_id: str
    reason: str


@dataclass(frozen=True)
class ShardReport:
    """A finished shard of a run.

    Attributes:
        run_id: the run.
        task: the shard.
        statuses: number of rows of each status.
        seconds: from fetching the tar to the published file.
        turn_s: part of `seconds` in which the model worked for this run, with the run's share of `waited_s`.
        waited_s: part of `turn_s` spent waiting for decoded images, shared by the runs that waited together.
        published: False if another writer was first.
        node: name of the machine.
        adopted_from: the run that the rows were taken over from; None if their votes were computed.
        hashes: of the file of votes, ours or the other writer's; None in a study.
    """

    run_id: str
    task: ShardTask
    statuses: dict[str, int]
    seconds: float
    turn_s: float
    waited_s: float
    published: bool
    node: str
    adopted_from: str | None = None
    hashes: FileHashes | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.statuses.values())


Step = Introduction | Refusal | int | ShardReport
"""A step of a shard: a run is introduced or refused, so many images are done, or a run has its file."""
