"""Runs of masks with votes drawn at random, and their certificates by hand: place by place and pixel by pixel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.manifests.ablation import ablation_of
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.run import Run
from tests.helpers.judged_runs import CLASSES, CROP, Image, image, judged_run
from tests.helpers.masks import HandMasks, double_masking

SQUARE = {"kind": "mask", "threat": 3, "per_axis": 2}
"""4 masks and 10 votes."""
WIDE = {"kind": "mask", "threat": 7, "per_axis": 3}
"""9 masks at a distance of 2 pixels: against small patches several masks hide each place."""
TWO = {"kind": "mask", "threat": 2, "per_axis": 3, "threat_patches": 2}
AREA = {"kind": "mask", "threat": {"pixels": 6}, "per_axis": 3}


def mask_set(ablation: dict[str, Any]) -> MaskSet:
    found = ablations_of(ablation_of(ablation), CROP, CROP)
    assert isinstance(found, MaskSet)
    return found


def drawn_image(random: np.random.Generator, key: str, masks: MaskSet, *, left_out: bool) -> Image:
    """An image of which few votes differ. Margins are eighths, so some are equal to thresholds."""
    leader, number = int(random.integers(CLASSES)), np.arange(masks.num_ablations)
    rates = np.where(number < masks.num_masks, random.choice([0, 0, 0.3]), random.choice([0, 0, 1, 3]) / len(number))
    votes = np.where(random.random(len(number)) < rates, random.integers(0, CLASSES, len(number)), leader)
    margins = (random.integers(random.choice([0, 2, 4]), 9, len(number)) / 8).astype(np.float32)
    if left_out and random.random() < 0.5:
        votes[(number >= masks.num_masks) & (random.random(len(number)) < 0.1)] = -1
    margins[votes == -1] = np.nan
    label, clean = (int(random.choice([leader, random.integers(CLASSES)], p=[0.8, 0.2])) for _ in range(2))
    columns = {"margins": margins, "clean_prediction": clean, "clean_margin": float(random.choice([0.125, 0.75]))}
    return image(key, votes.tolist(), label, **columns)


def masked_run(folder: Path, ablation: dict[str, Any], **changes: Any) -> tuple[Run, list[Image]]:
    """A run over two shards, and its images; the last of each shard could not be decoded."""
    random, masks = np.random.default_rng(0), mask_set(ablation)
    left_out = bool(ablation.get("early_exit"))
    shards = {
        f"{shard}.tar": [
            *(drawn_image(random, f"{shard}-{one}", masks, left_out=left_out) for one in range(60)),
            image(f"{shard}-broken", None),
        ]
        for shard in "ab"
    }
    run = judged_run(folder, shards, ablation=ablation, **changes)
    return run, [one for images in shards.values() for one in images if one["votes"] is not None]


class ByHand:
    """The answers for a run, from the pixels that its masks hide.

    Args:
        ablation: of the job.
        threats: every one of them must be withstood.
    """

    def __init__(self, ablation: dict[str, Any], threats: Sequence[Threat]) -> None:
        patches = ablation.get("threat_patches", 1)
        self.masks = HandMasks.like(mask_set(ablation), Threat(1, 1, patches))
        hidden = self.masks.hidden[: self.masks.num_masks]
        self.hiding = {
            tuple(mask for mask, pixels in enumerate(hidden) if patch <= pixels)
            for threat in threats
            for patch in self.masks.placed(threat).values()
        }
        assert all(self.hiding)

    def prediction(self, one: Image) -> int:
        return double_masking(one["votes"], self.masks.unions.tolist())

    def recovers(self, one: Image, tolerance: float) -> bool:
        """Whether at each place a mask hides the patch whose row shows one class, without a fragile vote."""
        votes, margins = one["votes"], one["margins"].tolist()
        uniform = {
            mask
            for mask, row in enumerate(self.masks.unions.tolist())
            if all(votes[vote] == votes[mask] and not margins[vote] < tolerance for vote in row)
        }
        return all(uniform & {*masks} for masks in self.hiding)

    def all_agree(self, one: Image, tolerance: float) -> bool:
        """The published certificate."""
        shown = zip(one["votes"], one["margins"].tolist(), strict=True)
        return all(vote == self.prediction(one) and not margin < tolerance for vote, margin in shown)

    def detects(self, one: Image, tolerance: float, alarm_below: float) -> bool:
        """Whether at no place all masks that hide the patch show one wrong class without an alarm."""
        if one["clean_margin"] < tolerance:
            return False

        def may_show(mask: int, wrong: int) -> bool:
            margin = float(one["margins"][mask])
            return (one["votes"][mask] == wrong or margin < tolerance) and margin + tolerance >= alarm_below

        wrong_classes = [number for number in range(CLASSES) if number != one["clean_prediction"]]
        return not any(all(may_show(mask, wrong) for mask in masks) for masks in self.hiding for wrong in wrong_classes)

    def all_comply(self, one: Image, tolerance: float, alarm_below: float) -> bool:
        """The published certificate of detection: each mask shows the class of the whole image, or alarms."""
        if one["clean_margin"] < tolerance:
            return False
        margins = one["margins"].tolist()
        return all(
            (one["votes"][mask] == one["clean_prediction"] and not margins[mask] < tolerance)
            or margins[mask] + tolerance < alarm_below
            for mask in range(self.masks.num_masks)
        )

    def alarm(self, one: Image, alarm_below: float) -> bool:
        """Whether a mask alarms on the image as it is."""
        masks = range(self.masks.num_masks)
        return any(
            one["votes"][mask] != one["clean_prediction"] or float(one["margins"][mask]) < alarm_below for mask in masks
        )
