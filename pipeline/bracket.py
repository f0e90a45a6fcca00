"""How far a certificate may be from the truth: certified accuracy <= robust accuracy <= accuracy under attack.

The certificate bounds robust accuracy from below, an attack from above. An attack usually sees only some of the images
that are right and not certified. The others are estimated: an interval says what the attacked ones, drawn at random,
tell about all. It does not say what other images would give.

Without labels, read `predictions that stay` for `accuracy`: each prediction counts as right.

Not covered: the attack (workers/studies/patch_attack.py); pictures of patches (pages/patches.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smoothcert.manifests.studies import PatchAttack
from smoothcert.pipeline.console.looks import number_of, percent
from smoothcert.pipeline.statistics import share_interval
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import numbers_of
from smoothcert.workers.studies.study import StoredStudy, studies_of

Bools = NDArray[np.bool_]
Image = tuple[str, int]
"""The shard and the position in it."""
Size = tuple[int, int]
"""Height and width of a patch in pixels."""


class Bound(NamedTuple):
    """The upper bound: its value, and the interval of 95 % that the choice of attacked images leaves."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Bracket:
    """What certificate and attack say about one size of patch.

    Attributes:
        patch: height and width in pixels.
        labelled: whether the job has labels.
        images: all images of the run.
        right: those that the smoothed classifier gets right.
        certified: those that are right and certified.
        attacked: how many of those that are right and not certified were attacked.
        fell: how many of these fell.
        attacked_certified: how many certified images were attacked, right or wrong.
        fallen_certified: the certified images that fell. There must be none: a certificate, or an engine, is wrong.
        studies: the ids of the studies.
    """

    patch: Size
    labelled: bool
    images: int
    right: int
    certified: int
    attacked: int
    fell: int
    attacked_certified: int
    fallen_certified: tuple[Image, ...]
    studies: tuple[str, ...]

    @property
    def uncertified(self) -> int:
        """Images that are right and not certified."""
        return self.right - self.certified

    @property
    def lower(self) -> float:
        """Certified accuracy."""
        return self.certified / self.images

    @property
    def upper(self) -> Bound:
        """Accuracy under attack, if the images that were not attacked fall as often as those that were."""
        if not self.attacked:
            share = self.right / self.images
            return Bound(share, self.lower, share)
        low, high = share_interval(self.attacked - self.fell, self.attacked)
        if self.attacked == self.uncertified:  # nothing is left to chance
            low = high = 1 - self.fell / self.attacked
        return Bound(*(self._with(stood) for stood in (1 - self.fell / self.attacked, low, high)))

    @property
    def at_most(self) -> float:
        """The share of images that are right and did not fall: a bound that supposes nothing of other images."""
        return (self.right - self.fell) / self.images

    @property
    def upper_text(self) -> str:
        """The upper bound as people read it: `70.12 % (68.00 to 72.30 %)`."""
        share, low, high = self.upper
        if low == high:
            return percent(share)
        if not self.attacked:
            return f"at most {percent(share)}"
        return f"{percent(share)} ({100 * low:.2f} to {100 * high:.2f} %)"

    @property
    def problems(self) -> list[str]:
        """What must not be, a line each: certified images that fell."""
        if not self.fallen_certified:
            return []
        height, width = self.patch
        count = number_of(len(self.fallen_certified), "certified image")
        images = ", ".join(f"{shard} {index}" for shard, index in self.fallen_certified[:3])
        return [
            f"{count} fell to a {height} x {width} patch ({images}): "
            "a certificate or the engine is wrong; run `smoothcert verify RUN --replay 100` and report this"
        ]

    def _with(self, stood: float) -> float:
        return (self.certified + self.uncertified * stood) / self.images

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "patch": list(self.patch),
            "labelled": self.labelled,
            "images": self.images,
            "right": self.right,
            "certified": self.certified,
            "attacked": self.attacked,
            "fell": self.fell,
            "attacked_certified": self.attacked_certified,
            "fallen_certified": [list(image) for image in self.fallen_certified],
            "certified_accuracy": self.lower,
            "accuracy_under_attack": self.upper._asdict(),
            "at_most": self.at_most,
            "studies": list(self.studies),
        }


def patch_attacks_of(run: Run) -> dict[Size, list[StoredStudy]]:
    """The finished attacks on a run by the size of their patch, ascending.

    Raises:
        RunError: a file of a study is damaged.
    """
    found: dict[Size, list[StoredStudy]] = {}
    for study in studies_of(run):
        if study.record.kind != PatchAttack.kind or study.success() is None:
            continue
        settings = study.settings
        assert isinstance(settings, PatchAttack)
        found.setdefault((settings.height, settings.width), []).append(study)
    return dict(sorted(found.items()))


def bracket(run: Run, patch: Size, studies: Iterable[StoredStudy]) -> Bracket:
    """Bring together what certificates and attacks say.

    Args:
        run: complete.
        patch: height and width in pixels.
        studies: attacks with such patches, finished or not.
    Raises:
        RunError: a file is damaged.
    """
    return brackets_of(run, {patch: [*studies]})[patch]


def brackets_of(run: Run, attacks: Mapping[Size, Sequence[StoredStudy]]) -> dict[Size, Bracket]:
    """The same for several sizes; the files of the run are read once, or not at all if there are no attacks.

    Args:
        run: complete.
        attacks: by the size of their patch, such as those of `patch_attacks_of`.
    Raises:
        RunError: a file is damaged.
    """
    counts = [_Count(patch, studies) for patch, studies in attacks.items()]
    if not counts:
        return {}
    rules, labelled = JobRules(run.job), run.job.images.label is not None
    images = 0
    for file in read_published(run, ["shard", "index", "label", "prediction", "votes"]):
        images += len(file.rows)
        rows = file.rows.filter(file.rows["votes"].is_valid())
        if not len(rows):
            continue
        ballots = rules.count(rows)
        right = np.ones(len(rows), bool)
        if labelled:
            right = numbers_of(rows["label"]) == numbers_of(rows["prediction"])
        for count in counts:
            count.add(rows, right, rules.answer(ballots, Threat(*count.patch)).certified)
    return {count.patch: count.bracket(labelled, images) for count in counts}


class _Count:
    """Counts the images of a run for one size of patch.

    Args:
        patch: height and width in pixels.
        studies: attacks with such patches.
    """

    def __init__(self, patch: Size, studies: Sequence[StoredStudy]) -> None:
        self.patch = patch
        self._studies = tuple(study.record.study_id for study in studies)
        self._attacked, self._fell = set[Image](), set[Image]()
        for study in studies:
            for row in study.rows(["shard", "index", "fell"]).to_pylist():
                if row["fell"] is not None:
                    self._attacked.add((row["shard"], row["index"]))
                if row["fell"]:
                    self._fell.add((row["shard"], row["index"]))
        self._right = self._certified = self._tried = self._fallen = self._tried_certified = 0
        self._fallen_certified: list[Image] = []

    def add(self, rows: pa.Table, right: Bools, certified: Bools) -> None:
        """Count images that have votes.

        Args:
            rows: of one file.
            right: [rows], whether the prediction counts as right.
            certified: [rows], whether no patch of this size changes it.
        """
        names = list(zip(rows["shard"].to_pylist(), rows["index"].to_pylist(), strict=True))
        attacked = np.array([name in self._attacked for name in names])
        fell = np.array([name in self._fell for name in names])
        self._right += int(right.sum())
        self._certified += int((right & certified).sum())
        self._tried += int((right & ~certified & attacked).sum())
        self._fallen += int((right & ~certified & fell).sum())
        self._tried_certified += int((certified & attacked).sum())
        self._fallen_certified += [name for name, both in zip(names, certified & fell, strict=True) if both]

    def bracket(self, labelled: bool, images: int) -> Bracket:
        """What was counted.

        Args:
            labelled: whether the job has labels.
            images: all images of the run.
        """
        return Bracket(
            self.patch,
            labelled,
            images,
            self._right,
            self._certified,
            self._tried,
            self._fallen,
            self._tried_certified,
            tuple(self._fallen_certified),
            self._studies,
        )
