"""One image of a run to show: its votes, where a patch hurts most, and what the prediction would become.

Not covered: the picture itself (pictures.py), how it is drawn (drawing.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smoothcert.pipeline.pages.pictures import Box
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import slack_if_touched
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import matrix_of

EXHIBIT_COLUMNS = ["shard", "key", "label", "prediction", "votes", "margins", "max_certified_patch"]


@dataclass(frozen=True)
class Exhibit:
    """One image of a run.

    Attributes:
        shard, key: which image.
        label: None without one.
        prediction: of the smoothed classifier.
        largest: side of the largest certified square.
        votes: [ablations].
        margins: [ablations].
        height, width: of the patch whose weakest place is shown.
        top, left: of that place, in pixels.
        slack: in votes; below 0: a patch there can change the prediction.
        becomes: the class that it would become first.
        is_grid: whether the ablations lie in rows and columns, as blocks do.
    """

    shard: str
    key: str
    label: int | None
    prediction: int
    largest: int
    votes: NDArray[np.integer]
    margins: NDArray[np.floating]
    height: int
    width: int
    top: int
    left: int
    slack: int
    becomes: int
    is_grid: bool

    @property
    def box(self) -> Box:
        """The weakest place."""
        return Box(self.top, self.left, self.height, self.width)


def exhibits_of(rows: pa.Table, run: Run, patches: Sequence[tuple[int, int]]) -> list[Exhibit]:
    """The images of rows, in order.

    Args:
        rows: of the run, with EXHIBIT_COLUMNS; all have votes.
        run: theirs.
        patches: height and width for each row.
    """
    if not len(rows):
        return []
    rules = JobRules(run.job)
    votes, margins = matrix_of(rows["votes"]), matrix_of(rows["margins"])
    exhibits = []
    listed = rows.select(["shard", "key", "label", "prediction", "max_certified_patch"]).to_pylist()
    for place, (row, (height, width)) in enumerate(zip(listed, patches, strict=True)):
        ballots = rules.count(rows.slice(place, 1))
        top, left = rules.answer(ballots, Threat(height, width)).places[0, 0].tolist()
        slack, rival = slack_if_touched(ballots, rules.ablations.touched_at(height, width, top, left))
        exhibits.append(
            Exhibit(
                shard=row["shard"],
                key=row["key"],
                label=row["label"],
                prediction=row["prediction"],
                largest=row["max_certified_patch"],
                votes=votes[place],
                margins=margins[place],
                height=height,
                width=width,
                top=top,
                left=left,
                slack=int(slack[0]),
                becomes=int(rival[0]),
                is_grid=run.job.ablation.kind == "block",
            )
        )
    return exhibits
