"""Runs of masks: with made-up votes, and with votes of a network."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.finished_runs import Row, finish
from tests.helpers.jobs import CLASSES, CROP
from tests.helpers.mask_runs import LiteralMasks, as_masks, left_out, some_votes

MASKS: dict[str, dict[str, Any]] = {
    "masks": {"kind": "mask", "threat": 4, "per_axis": 3},
    "early exit": {"kind": "mask", "threat": 5, "per_axis": 2, "fill": "black", "early_exit": True},
    "two patches": {"kind": "mask", "threat": 3, "per_axis": 3, "threat_patches": 2, "early_exit": True},
}
REAL: dict[str, dict[str, Any]] = {
    "masks": {"ablation": MASKS["masks"]},
    "early exit": {"ablation": MASKS["early exit"] | {"threat": 4}, "clean": False},
    "two patches": {"ablation": MASKS["two patches"]},
    "rectangle": {"ablation": {"kind": "mask", "threat": "3x6", "per_axis": 3}},
    "area": {
        "ablation": {"kind": "mask", "threat": {"pixels": 12}, "per_axis": 3},
        "images": {"shards": "tars", "label": None},
    },
}


@pytest.fixture(scope="session", params=REAL)
def any_masks_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of masks of each sort, whose votes a network cast; not to be changed."""
    return finish(tmp_path_factory.mktemp("real"), **REAL[request.param])


def made_up(finished: Path, folder: Path, ablation: dict[str, Any]) -> Path:
    """A run of masks with votes of all sorts."""
    masks = LiteralMasks.of(ablation, CROP)

    def votes_of(row: Row) -> list[int | None]:
        votes = some_votes(masks, row["index"], row["label"] or 0, CLASSES)
        return left_out(masks, votes) if ablation.get("early_exit") else [*votes]

    return as_masks(finished, folder, ablation, votes_of)


@pytest.fixture(scope="session", params=MASKS)
def any_masks(request: pytest.FixtureRequest, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of masks of each sort; not to be changed."""
    return made_up(finished, tmp_path_factory.mktemp("masks") / "run", MASKS[request.param])


@pytest.fixture(scope="session")
def finished_masks(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of masks with an early exit; not to be changed."""
    return made_up(finished, tmp_path_factory.mktemp("masks") / "run", MASKS["early exit"])


@pytest.fixture
def masks_run(finished_masks: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(finished_masks, tmp_path / "masks"))
