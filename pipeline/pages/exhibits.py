"""One image of a run to show: its votes, where a patch hurts most, and what the prediction would become.

Not covered: the picture itself (pictures.py), how it is drawn (drawing.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smoothcert.manifests.rules import RuleName
from smoothcert.pipeline.pages.pictures import Box
from smoothcert.pipeline.pages.rows import Rows
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import slack_if_touched
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import ABSENT, matrix_of

EXHIBIT_COLUMNS = [
    *("shard", "key", "label", "prediction", "votes", "margins"),
    *("max_certified_patch", "max_margin_certified_patch"),
]


@dataclass(frozen=True)
class MaskExhibit:
    """What masks add to an image.

    Attributes:
        hiding: how many masks hide the patch whole at its weakest place.
        uniform: how many of them are uniform.
        boxes: the rectangles among them, each with whether it is uniform.
        differing: how many of the votes that were cast do not show the prediction.
    """

    hiding: int
    uniform: int
    boxes: tuple[tuple[Box, bool], ...]
    differing: int


@dataclass(frozen=True)
class Exhibit:
    """One image of a run.

    Attributes:
        shard, key: which image.
        label: None without one.
        prediction: of the majority, or of double masking.
        largest: side of the largest certified square.
        votes: [ablations], -1 where none was cast.
        margins: [ablations], NaN where no vote was cast.
        height, width: of the patch whose weakest place is shown.
        top, left: of that place, in pixels.
        slack: in votes, or in masks; below 0: the certificate fails there.
        becomes: the class that it would become first; of masks, the one with most votes among the others, None if no
            vote shows another.
        grid: [rows, columns], the ablations in the order in which they are drawn: blocks by their place, votes of masks
            by the two masks that are hidden; None: in one row.
        masks: None for columns, rows and blocks.
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
    becomes: int | None
    grid: NDArray[np.integer] | None
    masks: MaskExhibit | None = None

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
    judged = Rows(rows, run.job)
    votes, margins = matrix_of(rows["votes"]), matrix_of(rows["margins"])
    listed = rows.select(["shard", "key", "label", "prediction"]).to_pylist()
    largest, grid = judged.largest_squares[RuleName.exact].tolist(), _grid_of(judged.rules)
    exhibits = []
    for place, (row, (height, width)) in enumerate(zip(listed, patches, strict=True)):
        ballots = judged.ballots.of_images(slice(place, place + 1))
        top, left = judged.rules.answer(ballots, Threat(height, width)).places[0, 0].tolist()
        box = Box(top, left, height, width)
        exhibits.append(
            Exhibit(
                **row,
                **_outcome(ballots, judged.rules, box, votes[place]),
                largest=largest[place],
                votes=votes[place],
                margins=margins[place],
                height=height,
                width=width,
                top=top,
                left=left,
                grid=grid,
            )
        )
    return exhibits


def masks_in_words(masks: MaskExhibit) -> str:
    """How many masks hide the patch, and how many of these are uniform."""
    if masks.hiding == 1:
        return f"1 mask hides it and is {'uniform' if masks.uniform else 'not uniform'}"
    return f"{masks.hiding:,} masks hide it, {masks.uniform:,} of them uniform"


def _grid_of(rules: JobRules) -> NDArray[np.integer] | None:
    if isinstance(rules.ablations, MaskSet):
        return rules.ablations.unions
    side = math.isqrt(rules.ablations.num_ablations)
    is_grid = rules.job.ablation.kind == "block" and side**2 == rules.ablations.num_ablations
    return np.arange(side**2).reshape(side, side) if is_grid else None


def _outcome(ballots: Any, rules: JobRules, box: Box, votes: NDArray[np.integer]) -> dict[str, Any]:
    """What a patch at this place can do: slack, becomes and masks of the exhibit."""
    touched = rules.ablations.touched_at(box.height, box.width, box.top, box.left)
    if not isinstance(rules.ablations, MaskSet):
        slack, rival = slack_if_touched(ballots, touched)
        return {"slack": int(slack[0]), "becomes": int(rival[0])}
    masks, prediction = rules.ablations, ballots.prediction[0]
    hiding = ~touched[: masks.num_masks]
    uniform = ballots.uniform[0] & hiding
    others = np.bincount(votes[(votes != prediction) & (votes != ABSENT)])
    shown = MaskExhibit(
        hiding=int(hiding.sum()),
        uniform=int(uniform.sum()),
        boxes=tuple(
            (_box_of(masks, rectangle), bool(uniform[rectangle]))
            for rectangle in np.flatnonzero(hiding[: len(masks.rows)]).tolist()
        ),
        differing=int(others.sum()),
    )
    return {"slack": shown.uniform - 1, "becomes": int(others.argmax()) if len(others) else None, "masks": shown}


def _box_of(masks: MaskSet, rectangle: int) -> Box:
    rows, columns = masks.rows[rectangle], masks.columns[rectangle]
    return Box(int(rows.argmax()), int(columns.argmax()), int(rows.sum()), int(columns.sum()))
