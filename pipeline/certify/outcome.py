"""What became of a run: complete, unfinished or refused, and what it cost. Light: loads no ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from smoothcert.workers.runs.records import FiguresRecord
from smoothcert.workers.runs.run import Run


@dataclass(frozen=True)
class Work:
    """What this driver did for a run.

    Attributes:
        computed: number of shards whose votes were computed.
        adopted: number of shards that were taken over, by the id of the run that they came from.
        images: number of images of the computed shards.
        seconds: from the first shard to the last.
        turn_seconds: the sum, over all shards, of the time in which a model worked or waited for images.
        waited_seconds: the part of it spent waiting for decoded images.
    """

    computed: int = 0
    adopted: Mapping[str, int] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    turn_seconds: float = 0.0
    waited_seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        state: complete; unfinished: the same command continues it; refused: the request is wrong.
        problems: why it is not complete; of a complete run, why its figures cannot be trusted. A line each.
        run: the run; None if it was refused before it was known.
        figures: of the published files; None if there are none.
        work: what was done now.
    """

    state: Literal["complete", "unfinished", "refused"]
    problems: tuple[str, ...] = ()
    run: Run | None = None
    figures: FiguresRecord | None = None
    work: Work = Work()
