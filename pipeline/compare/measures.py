"""What is compared: an image is right or wrong by each measure, in each run.

    clean       the whole image is classified as its label says
    smoothed    the prediction is the label
    certified   no patch of this size changes the prediction, which is the label (without labels: whatever it is)
    detection   none changes the class of the whole image without an alarm, and it is the label (likewise)
    errors      the image has no votes, or no usable label

Not covered: which image of one run is which of the other (pairs.py); the rules (pipeline/pages/rows.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.manifests.ablation import Area, Size, threat_in_words
from smoothcert.manifests.rules import Certificate, Claim, RuleName
from smoothcert.pipeline.pages.rows import Bools, Rows
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.votes_table import ABSENT, numbers_of, spread


@dataclass(frozen=True)
class Certified:
    """A measure: certified against patches by a rule.

    Attributes:
        patch: height and width in pixels; or the area of all rectangles that the masks of both runs were made for.
        patches: how many at once.
    """

    patch: Size | Area
    rule: str
    certificate: Certificate = Certificate.recovery
    patches: int = 1

    @property
    def column(self) -> str:
        """Its name in tables."""
        certified = "detection" if self.is_detection else "certified"
        one = f"{self.patch.pixels}_pixels" if isinstance(self.patch, Area) else "{}x{}".format(*self.patch)
        return f"{certified}_{one if self.patches == 1 else f'{self.patches}_of_{one}'}_{self.rule}"

    @property
    def size(self) -> Size | None:
        """Height and width of the patch; None for an area."""
        return None if isinstance(self.patch, Area) else self.patch

    @property
    def described(self) -> dict[str, Any]:
        """The columns of `changes` that name it."""
        height, width = self.size or (None, None)
        return {
            "patch_height": height,
            "patch_width": width,
            "pixels": self.patch.pixels if isinstance(self.patch, Area) else None,
            "patches": self.patches,
            "certificate": self.certificate.value,
            "rule": self.rule,
        }

    @property
    def is_detection(self) -> bool:
        return self.certificate == Certificate.detection

    @property
    def of(self) -> str:
        """The column of the class that is certified."""
        return "clean_prediction" if self.is_detection else "prediction"

    @property
    def threat(self) -> Threat | None:
        """None for what the masks were made for, an area."""
        return None if self.size is None else Threat(*self.size, self.patches)

    @property
    def claim(self) -> Claim:
        return Claim(certificate=self.certificate, rule=RuleName(self.rule))

    @property
    def text(self) -> str:
        return f"{self.short} {self.against}"

    @property
    def short(self) -> str:
        return "certified for detection" if self.is_detection else "certified"

    @property
    def against(self) -> str:
        return f"against {threat_in_words(self.patch, self.patches)} ({self.rule} rule)"


def right_in(rows: pa.Table, column: str) -> Bools:
    """[rows]: whether a column of predictions holds the label."""
    predictions = numbers_of(rows[column])
    right: Bools = (predictions != ABSENT) & (predictions == numbers_of(rows["label"]))
    return right


def errors_in(rows: pa.Table) -> Bools:
    """[rows]: whether anything is wrong with the image."""
    return np.asarray(pc.not_equal(rows["status"], "ok"))


def certified_in(rows: Rows, measure: Certified) -> Bools:
    """[rows]: whether the class is certified, right or wrong."""
    return rows.certified(measure.threat, measure.claim)


def slack_and_place(rows: Rows, which: Bools, measure: Certified) -> dict[str, Any]:
    """Slack, top and left pixel of the weakest place of each row that is asked for, null without votes. A rule that
    looks at no place gives none, nor does an answer about several patches or an area.

    Args:
        rows: of a run.
        which: [rows], those that are asked for.
        measure: patch and rule.
    """
    voted = rows.voted[which]
    ballots = rows.ballots.of_images(np.flatnonzero(which[rows.voted]))
    answer = rows.rules.answer(ballots, measure.threat, measure.claim)
    place = answer.places[:, 0].astype(np.int32)
    unknown = (place < 0) | (measure.size is None or measure.patches > 1)
    values = {
        "slack": pa.array(answer.slack.astype(np.int32)),
        **{name: pa.array(place[:, axis], mask=unknown[:, axis]) for axis, name in enumerate(("top", "left"))},
    }
    return {name: spread(array, voted) for name, array in values.items()}
