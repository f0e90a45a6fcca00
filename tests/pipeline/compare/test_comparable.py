"""Runs that cannot be compared are refused, each for its reason; what does not matter refuses nothing."""

from pathlib import Path
from typing import Any

import pytest

from smoothcert.pipeline.compare.comparable import differing_keys, reasons_against
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.workers.runs.run import Run
from tests.helpers.judged_runs import JOB, image, judged_run

SHARDS = {"a.tar": [image("0", [0] * 12)]}


def against(base: Run, new: Run) -> dict[Reason, str]:
    return reasons_against(base, new, (base.complete(), new.complete()))


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"name": "another"}, []),
        ({"patches": [3]}, []),
        ({"model": {**JOB["model"], "architecture": "vit_small_patch16_224", "dtype": "bfloat16"}}, []),
        ({"clean": False}, []),
        ({"images": {"shards": "unused", "limit": 1}}, [Reason.images]),
        ({"images": {"shards": "unused", "version": "2"}}, [Reason.images]),
        ({"images": {"shards": "unused", "image": ["png"]}}, [Reason.images]),
        ({"images": {"shards": "unused", "label": None}}, [Reason.labels]),
        ({"images": {"shards": "unused", "first_label": 1}}, [Reason.labels]),
        ({"model": {**JOB["model"], "classes": 5}}, [Reason.classes]),
        ({"preprocess": {"resize": 13, "crop": 12}}, [Reason.preprocessing]),
    ],
)
def test_a_difference_has_its_reason(tmp_path: Path, changes: dict[str, Any], reasons: list[Reason]) -> None:
    base, new = judged_run(tmp_path / "base", SHARDS), judged_run(tmp_path / "new", SHARDS, weights="1", **changes)
    assert list(against(base, new)) == reasons
    assert list(against(new, base)) == reasons
    assert list(against(base, base)) == []


def test_other_tars_are_other_images(tmp_path: Path) -> None:
    """By name and size."""
    base = judged_run(tmp_path / "base", SHARDS)
    new = judged_run(tmp_path / "new", {**SHARDS, "b.tar": [image("1", [0] * 12)]})
    assert against(base, new) == {Reason.images: "the runs differ in images.shards"}


def test_an_unfinished_run_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    """Once, if it is compared with itself."""
    base = judged_run(tmp_path / "base", SHARDS)
    new = judged_run(tmp_path / "new", SHARDS, weights="1", finished=False)
    assert against(base, new) == {Reason.unfinished: f"{new.url} has no _SUCCESS"}
    next(Path(new.url, "votes").iterdir()).unlink()
    assert against(new, new) == {Reason.unfinished: f"{new.url} lacks 1 of 1 files"}


def test_differing_keys_are_key_paths_of_the_identities(tmp_path: Path) -> None:
    base = judged_run(tmp_path / "base", SHARDS)
    new = judged_run(tmp_path / "new", SHARDS, weights="1", ablation={"kind": "column", "size": 4})
    assert differing_keys(base, new) == ["ablation.size", "model.checkpoint_sha256"]
