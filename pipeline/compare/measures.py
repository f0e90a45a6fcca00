"""What is compared: an image is right or wrong by each measure, in each run.

    clean       the whole image is classified as its label says
    smoothed    the prediction is the label
    certified   no patch of this size changes the prediction, which is the label (without labels: whatever it is)
    errors      the image has no votes, or no usable label

Not covered: which image of one run is which of the other (pairs.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import RuleName
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.certificates.majority import LARGEST_SQUARES
from smoothcert.workers.certificates.rules import Answer, Ballots
from smoothcert.workers.runs.votes_table import ABSENT, matrix_of, numbers_of, spread

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Certified:
    """A measure: certified against one patch of height x width pixels by a rule."""

    height: int
    width: int
    rule: str

    @property
    def column(self) -> str:
        """Its name in tables."""
        return f"certified_{self.height}x{self.width}_{self.rule}"

    @property
    def text(self) -> str:
        return f"certified against {self.height} x {self.width} ({self.rule} rule)"


def right_in(rows: pa.Table, column: str) -> Bools:
    """[rows]: whether a column of predictions holds the label."""
    predictions = numbers_of(rows[column])
    right: Bools = (predictions != ABSENT) & (predictions == numbers_of(rows["label"]))
    return right


def errors_in(rows: pa.Table) -> Bools:
    """[rows]: whether anything is wrong with the image."""
    return np.asarray(pc.not_equal(rows["status"], "ok"))


def certified_in(rows: pa.Table, job: Job, measure: Certified) -> Bools:
    """[rows]: whether the prediction is certified, right or wrong.

    The stored columns answer for squares; the votes answer for other rectangles.
    """
    if measure.height == measure.width:
        largest = numbers_of(rows[LARGEST_SQUARES[RuleName(measure.rule)]])
        square: Bools = largest >= measure.height
        return square
    voted = np.asarray(pc.is_valid(rows["votes"]))
    certified = np.zeros(len(rows), bool)
    if voted.any():
        certified[voted] = answer_for(rows.filter(pa.array(voted)), job, measure).certified
    return certified


def answer_for(voted: pa.Table, job: Job, measure: Certified) -> Answer:
    """The rule's answer for rows that all have votes."""
    ablations = ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop)
    ballots = Ballots.of(matrix_of(voted["votes"]), classes=job.model.classes)
    return family_of(job.ablation).rules[measure.rule](ballots, ablations, Threat(measure.height, measure.width))


def slack_and_place(rows: pa.Table, job: Job, measure: Certified) -> dict[str, Any]:
    """Slack, top and left pixel of the weakest place of each row, null without votes."""
    voted = np.asarray(pc.is_valid(rows["votes"]))
    if not voted.any():
        return {name: pa.nulls(len(rows), pa.int32()) for name in ("slack", "top", "left")}
    answer = answer_for(rows.filter(pa.array(voted)), job, measure)
    values = {"slack": answer.slack, "top": answer.places[:, 0, 0], "left": answer.places[:, 0, 1]}
    return {name: spread(pa.array(array.astype(np.int32)), voted) for name, array in values.items()}
