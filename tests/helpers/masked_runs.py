"""Runs of masks with made-up votes, and their certificates by hand: masks and places as sets of pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from smoothcert.manifests.job import Job
from smoothcert.pipeline.pages.rows import Rows
from smoothcert.pipeline.report.figures import columns_of
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from tests.helpers.judged_runs import CLASSES, JOB, Image, image, judged_run
from tests.helpers.masks import HandMasks

MASKS: dict[str, Any] = {"kind": "mask", "threat": 3, "per_axis": 3}
KINDS: dict[str, dict[str, Any]] = {
    "square": MASKS,
    "rectangle": {"kind": "mask", "threat": "2x5", "per_axis": 2, "fill": "black"},
    "area": {"kind": "mask", "threat": {"pixels": 6}, "per_axis": 3},
    "two patches": {"kind": "mask", "threat": 2, "per_axis": 3, "threat_patches": 2},
}


def masked_run(folder: Path, ablation: dict[str, Any] = MASKS, images: int = 40, **changes: Any) -> Run:
    """Two shards of images; of most, some masks are uniform. One has no votes."""
    random = np.random.default_rng(0)
    count = JobRules(Job.model_validate(JOB | {"ablation": ablation})).ablations.num_ablations
    made = [_image(number, count, random) for number in range(images)]
    made[5] = image("005", None)
    return judged_run(folder, {"a.tar": made[:15], "b.tar": made[15:]}, ablation=ablation, **changes)


def _image(number: int, count: int, random: np.random.Generator) -> Image:
    leader = number % CLASSES
    wrong = random.random(count) < random.choice([0, 0.01, 0.05, 0.3])
    votes = np.where(wrong, random.integers(0, CLASSES, count), leader)
    clean = leader if random.random() < 0.8 else int(random.integers(0, CLASSES))
    label = leader if random.random() < 0.8 else int(random.integers(0, CLASSES))
    margins = random.random(count).astype(np.float32)
    return image(f"{number:03d}", votes.tolist(), label, clean_prediction=clean, margins=margins)


def rows_of(run: Run) -> Rows:
    """All rows of a run of any kind."""
    tables = [file.rows for file in read_published(run, columns_of(run.job))]
    return Rows(pa.concat_tables(tables).combine_chunks(), run.job)


def hand_masks(run: Run, patches: int = 1) -> HandMasks:
    """The masks of a run."""
    masks = JobRules(run.job).ablations
    assert isinstance(masks, MaskSet)
    return HandMasks.like(masks, Threat(1, 1, patches))


def hiding(masks: HandMasks, threat: Threat) -> Iterator[list[int]]:
    """The masks that hide the patches at each of their places."""
    for pixels in masks.placed(threat).values():
        yield [mask for mask in range(masks.num_masks) if pixels <= masks.hidden[mask]]


def uniform(masks: HandMasks, votes: list[int], mask: int) -> bool:
    return len({votes[union] for union in masks.unions[mask]}) == 1


def recovers(masks: HandMasks, votes: list[int] | None, threat: Threat) -> bool:
    """Whether some uniform mask hides the patches at every place."""
    return votes is not None and all(
        any(uniform(masks, votes, mask) for mask in there) for there in hiding(masks, threat)
    )


def notices(masks: HandMasks, votes: list[int] | None, clean: int, threat: Threat) -> bool:
    """Whether the masks that hide the patches show the class of the whole image, or several, at every place."""
    return votes is not None and all(
        len({votes[mask] for mask in there}) > 1 or votes[there[0]] == clean for there in hiding(masks, threat)
    )
