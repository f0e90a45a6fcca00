"""How far a certificate may be from the truth: certified accuracy <= robust accuracy <= accuracy under attack.

The certificate bounds robust accuracy from below, an attack from above. An attack usually sees only some of the images
that are right and not certified. The others are estimated: an interval says what the attacked ones, drawn at random,
tell about all. It does not say what other images would give.

Without labels, read `predictions that stay` for `accuracy`: each prediction counts as right.

Not covered: the attack (workers/studies/patch_attack.py); pictures of patches (pages/patches.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.studies import PatchAttack
from smoothcert.pipeline.statistics import share_interval
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.certificates.rules import Ballots
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import matrix_of, numbers_of
from smoothcert.workers.studies.study import StoredStudy, studies_of

Bools = NDArray[np.bool_]
Image = tuple[str, int]
"""The shard and the position in it."""


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

    patch: tuple[int, int]
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
        """Accuracy under attack."""
        if not self.attacked:
            share = self.right / self.images
            return Bound(share, self.lower, share)
        low, high = share_interval(self.attacked - self.fell, self.attacked)
        if self.attacked == self.uncertified:  # nothing is left to chance
            low = high = 1 - self.fell / self.attacked
        return Bound(*(self._with(stood) for stood in (1 - self.fell / self.attacked, low, high)))

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
            "studies": list(self.studies),
        }


def patch_attacks_of(run: Run) -> dict[tuple[int, int], list[StoredStudy]]:
    """The finished attacks on a run by the size of their patch.

    Raises:
        RunError: a file of a study is damaged.
    """
    found: dict[tuple[int, int], list[StoredStudy]] = {}
    for study in studies_of(run):
        if isinstance(study.settings, PatchAttack) and study.success() is not None:
            found.setdefault((study.settings.height, study.settings.width), []).append(study)
    return dict(sorted(found.items()))


def bracket(run: Run, patch: tuple[int, int], studies: Iterable[StoredStudy]) -> Bracket:
    """Bring together what certificates and attacks say.

    Args:
        run: complete.
        patch: height and width in pixels.
        studies: attacks with such patches, finished or not.
    Raises:
        RunError: a file is damaged.
    """
    studies = list(studies)
    attacked, fell = _attacked(studies)
    job, crop = run.job, run.job.preprocess.crop
    ablations, rule = ablations_of(job.ablation, crop, crop), next(iter(family_of(job.ablation).rules.values()))
    labelled = job.images.label is not None
    images = right_count = certified_right = tried = fallen = tried_certified = 0
    fallen_certified = list[Image]()
    for file in read_published(run, ["shard", "index", "label", "prediction", "votes"]):
        images += len(file.rows)
        rows = file.rows.filter(file.rows["votes"].is_valid())
        if not len(rows):
            continue
        ballots = Ballots.of(matrix_of(rows["votes"]), classes=job.model.classes)
        certified = rule(ballots, ablations, Threat(*patch)).certified
        right = np.ones(len(rows), bool)
        if labelled:
            right = numbers_of(rows["label"]) == numbers_of(rows["prediction"])
        names = list(zip(rows["shard"].to_pylist(), rows["index"].to_pylist(), strict=True))
        was_attacked = np.array([name in attacked for name in names])
        has_fallen = np.array([name in fell for name in names])
        right_count += int(right.sum())
        certified_right += int((right & certified).sum())
        tried += int((right & ~certified & was_attacked).sum())
        fallen += int((right & ~certified & has_fallen).sum())
        tried_certified += int((certified & was_attacked).sum())
        fallen_certified += [name for name, both in zip(names, certified & has_fallen, strict=True) if both]
    return Bracket(
        patch,
        labelled,
        images,
        right_count,
        certified_right,
        tried,
        fallen,
        tried_certified,
        tuple(fallen_certified),
        tuple(study.record.study_id for study in studies),
    )


def _attacked(studies: Iterable[StoredStudy]) -> tuple[set[Image], set[Image]]:
    """The images that were attacked, and those that fell."""
    attacked, fell = set[Image](), set[Image]()
    for study in studies:
        for row in study.rows().select(["shard", "index", "fell"]).to_pylist():
            if row["fell"] is not None:
                attacked.add((row["shard"], row["index"]))
            if row["fell"]:
                fell.add((row["shard"], row["index"]))
    return attacked, fell
