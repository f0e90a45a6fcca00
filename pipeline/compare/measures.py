"""What is compared: an image is right or wrong by each measure, in each run.

    clean       the whole image is classified as its label says
    smoothed    the prediction is the label
    certified   no patch of this size changes the prediction, which is the label (without labels: whatever it is)
    errors      the image has no votes, or no usable label

Not covered: which image of one run is which of the other (pairs.py).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import Claim, RuleName
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.majority import LARGEST_SQUARES
from smoothcert.workers.certificates.rules import Answer
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.votes_table import ABSENT, numbers_of, spread

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


@dataclass(frozen=True)
class Rows:
    """Rows of a run. Their votes are counted once, when the first measure asks for them."""

    table: pa.Table
    job: Job

    @cached_property
    def voted(self) -> Bools:
        """[rows]: whether they have votes."""
        return np.asarray(pc.is_valid(self.table["votes"]))

    @cached_property
    def rules(self) -> JobRules:
        return JobRules(self.job)

    @cached_property
    def ballots(self) -> Any:
        """Of the rows that have votes."""
        return self.rules.count(self.table.filter(pa.array(self.voted)))

    def answer(self, ballots: Any, measure: Certified) -> Answer:
        """The rule's answer for some of the ballots."""
        threat = Threat(measure.height, measure.width)
        return self.rules.answer(ballots, threat, Claim(rule=RuleName(measure.rule)))


def certified_in(rows: Rows, measure: Certified) -> Bools:
    """[rows]: whether the prediction is certified, right or wrong.

    The stored columns answer for squares; the votes answer for other rectangles.
    """
    if measure.height == measure.width:
        largest = numbers_of(rows.table[LARGEST_SQUARES[RuleName(measure.rule)]])
        square: Bools = largest >= measure.height
        return square
    certified = np.zeros(len(rows.table), bool)
    certified[rows.voted] = rows.answer(rows.ballots, measure).certified
    return certified


def slack_and_place(rows: Rows, which: Bools, measure: Certified) -> dict[str, Any]:
    """Slack, top and left pixel of the weakest place of each row that is asked for, null without votes.

    Args:
        rows: of a run.
        which: [rows], those that are asked for.
        measure: patch and rule.
    """
    voted = rows.voted[which]
    answer = rows.answer(rows.ballots.of_images(np.flatnonzero(which[rows.voted])), measure)
    values = {"slack": answer.slack, "top": answer.places[:, 0, 0], "left": answer.places[:, 0, 1]}
    return {name: spread(pa.array(array.astype(np.int32)), voted) for name, array in values.items()}
