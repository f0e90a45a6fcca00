"""Runs of masks with votes drawn at random, and their certificates by hand: place by place and pixel by pixel."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.manifests.ablation import ablation_of
from smoothcert.pipeline.pages.rows import Rows
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import schema
from tests.helpers.judged_runs import CLASSES, CROP, Image, image, judged_run
from tests.helpers.masks import HandMasks, double_masking

MASKS: dict[str, Any] = {"kind": "mask", "threat": 3, "per_axis": 3}
FEW: dict[str, Any] = {"kind": "mask", "threat": 3, "per_axis": 2}
"""4 masks and 10 votes."""
WIDE: dict[str, Any] = {"kind": "mask", "threat": 7, "per_axis": 3}
"""9 masks at a distance of 2 pixels: against small patches several masks hide each place."""
AREA: dict[str, Any] = {"kind": "mask", "threat": {"pixels": 6}, "per_axis": 3}
TWO: dict[str, Any] = {"kind": "mask", "threat": 2, "per_axis": 3, "threat_patches": 2}
KINDS: dict[str, dict[str, Any]] = {
    "square": MASKS,
    "rectangle": {"kind": "mask", "threat": "2x5", "per_axis": 2, "fill": "black"},
    "area": AREA,
    "two patches": TWO,
}

Row = Mapping[str, Any]
Places = tuple[tuple[int, int], ...]


def masked_run(
    folder: Path, ablation: dict[str, Any] = MASKS, count: int = 40, *, seed: int = 0, **changes: Any
) -> Run:
    """Two shards of images, 15 of them in the first. Votes of few images differ much; the sixth image has none."""
    random, masks = np.random.default_rng(seed), _mask_set(ablation)
    drawn = [_drawn_image(random, f"{number:03d}", masks, ablation) for number in range(count)]
    drawn[5] = image("005", None)
    return judged_run(folder, {"a.tar": drawn[:15], "b.tar": drawn[15:]}, ablation=ablation, **changes)


def _drawn_image(random: np.random.Generator, key: str, masks: MaskSet, ablation: dict[str, Any]) -> Image:
    """Margins are eighths, so some are equal to thresholds. With an early exit some pairs are left out."""
    leader, number = int(random.integers(CLASSES)), np.arange(masks.num_ablations)
    rates = np.where(number < masks.num_masks, random.choice([0, 0, 0.3]), random.choice([0, 0, 1, 3]) / len(number))
    votes = np.where(random.random(len(number)) < rates, random.integers(0, CLASSES, len(number)), leader)
    margins = (random.integers(random.choice([0, 2, 4]), 9, len(number)) / 8).astype(np.float32)
    if ablation.get("early_exit") and random.random() < 0.5:
        votes[(number >= masks.num_masks) & (random.random(len(number)) < 0.1)] = -1
    margins[votes == -1] = np.nan
    label, clean = (int(random.choice([leader, random.integers(CLASSES)], p=[0.8, 0.2])) for _ in range(2))
    columns = {"margins": margins, "clean_prediction": clean, "clean_margin": float(random.choice([0.125, 0.75]))}
    return image(key, votes.tolist(), label, **columns)


def _mask_set(ablation: dict[str, Any]) -> MaskSet:
    found = ablations_of(ablation_of(ablation), CROP, CROP)
    assert isinstance(found, MaskSet)
    return found


def rows_of(run: Run) -> Rows:
    """All rows of a run of any kind."""
    names = schema(JobRules(run.job).ablations.num_ablations, family_of(run.job.ablation)).names
    return Rows(run.images(names).combine_chunks(), run.job)


def row_list(run: Run, *, voted: bool = False) -> list[Row]:
    """The rows; only those with votes if `voted`."""
    return [row for row in rows_of(run).table.to_pylist() if row["votes"] is not None or not voted]


class ByHand:
    """The answers for rows of a run, from the pixels that its masks hide.

    A row holds what the files hold. Without votes nothing is certified. Of several threats all must be withstood.

    Args:
        ablation: of the job.
    """

    def __init__(self, ablation: dict[str, Any]) -> None:
        self.masks = HandMasks.like(_mask_set(ablation), Threat(1, 1, ablation.get("threat_patches", 1)))
        self.unions: list[list[int]] = self.masks.unions.tolist()
        self._hiding: dict[Threat, dict[Places, list[int]]] = {}

    def hiding(self, threat: Threat) -> dict[Places, list[int]]:
        """The masks that hide the patches at each of their places."""
        if threat not in self._hiding:
            hidden = self.masks.hidden[: self.masks.num_masks]
            self._hiding[threat] = {
                places: [mask for mask, pixels in enumerate(hidden) if patches <= pixels]
                for places, patches in self.masks.placed(threat).items()
            }
        return self._hiding[threat]

    def prediction(self, row: Row) -> int:
        return double_masking(row["votes"], self.unions)

    def uniform(self, row: Row, tolerance: float = 0.0) -> set[int]:
        """The masks whose row of votes shows one class, without a fragile vote."""
        votes, margins = row["votes"], row["margins"]
        return {
            mask
            for mask, union in enumerate(self.unions)
            if all(votes[vote] == votes[mask] and not margins[vote] < tolerance for vote in union)
        }

    def recovers(self, row: Row, *threats: Threat, tolerance: float = 0.0) -> bool:
        """Whether at each place a uniform mask hides the patches."""
        if row["votes"] is None:
            return False
        uniform = self.uniform(row, tolerance)
        return all(uniform & {*masks} for masks in self._sets(threats))

    def all_agree(self, row: Row, tolerance: float = 0.0) -> bool:
        """The published certificate."""
        if row["votes"] is None:
            return False
        shown = zip(row["votes"], row["margins"], strict=True)
        return all(vote == self.prediction(row) and not margin < tolerance for vote, margin in shown)

    def detects(self, row: Row, *threats: Threat, tolerance: float = 0.0, alarm_below: float = 0.0) -> bool:
        """Whether at no place all masks that hide the patches may show one wrong class without an alarm."""
        if row["votes"] is None or row["clean_margin"] < tolerance:
            return False

        def may_show(mask: int, wrong: int) -> bool:
            margin = row["margins"][mask]
            return (row["votes"][mask] == wrong or margin < tolerance) and margin + tolerance >= alarm_below

        return not any(
            all(may_show(mask, wrong) for mask in masks)
            for masks in self._sets(threats)
            for wrong in range(CLASSES)
            if wrong != row["clean_prediction"]
        )

    def all_comply(self, row: Row, tolerance: float = 0.0, alarm_below: float = 0.0) -> bool:
        """The published certificate of detection: each mask shows the class of the whole image, or alarms."""
        if row["votes"] is None or row["clean_margin"] < tolerance:
            return False
        votes, margins = row["votes"], row["margins"]
        return all(
            (votes[mask] == row["clean_prediction"] and not margins[mask] < tolerance)
            or margins[mask] + tolerance < alarm_below
            for mask in range(self.masks.num_masks)
        )

    def alarm(self, row: Row, alarm_below: float = 0.0) -> bool:
        """Whether a mask alarms on the image as it is."""
        masks = range(self.masks.num_masks)
        return any(
            row["votes"][mask] != row["clean_prediction"] or row["margins"][mask] < alarm_below for mask in masks
        )

    def _sets(self, threats: Iterable[Threat]) -> set[tuple[int, ...]]:
        sets = {tuple(masks) for threat in threats for masks in self.hiding(threat).values()}
        assert all(sets), "a place that no mask hides"
        return sets
