"""Runs of kind mask with made-up votes, and what the votes say, read literally from the definitions."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, combinations_with_replacement, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.finished_runs import Row, edit_json, file_of, rows_of, write

Pixels = frozenset[tuple[int, int]]

CERTIFIED = ("recovery_certified", "recovery_published", "detection_certified")
NOT_OF_MASKS = ("count", "runner_up", "runner_up_count", "max_certified_patch", "max_margin_certified_patch")
DEFAULTS = {"fill": "mean", "threat_patches": 1, "early_exit": False}


class LiteralMasks:
    """Masks as sets of pixels.

    Args:
        base: the pixels of each base mask, in order.
        patches: how many patches there are at once.
        patch_sets: the pixels that the patches cover together, at each place.

    Attributes:
        votes: the base masks that each vote hides.
        masks: those of each mask.
        rows: for each mask, the positions of the votes that hide it, alone or with another one.
        covering: the masks that hide all patches, for all places.
    """

    def __init__(self, base: Sequence[Pixels], patches: int, patch_sets: Sequence[Pixels]) -> None:
        sizes = range(1, 2 * patches + 1)
        self.votes = [frozenset(vote) for size in sizes for vote in combinations(range(len(base)), size)]
        self.masks = [vote for vote in self.votes if len(vote) <= patches]
        position = {vote: number for number, vote in enumerate(self.votes)}
        self.rows = [[position[mask | other] for other in self.masks] for mask in self.masks]
        hidden = [frozenset[tuple[int, int]]().union(*(base[each] for each in mask)) for mask in self.masks]
        self.covering = {
            frozenset(number for number, pixels in enumerate(hidden) if shown <= pixels) for shown in patch_sets
        }

    @classmethod
    def of(cls, ablation: dict[str, Any], side: int) -> "LiteralMasks":
        """The masks of a job against square patches."""
        patch_px, per_axis, patches = ablation["threat"], ablation["per_axis"], ablation.get("threat_patches", 1)
        stride = -(-(side - patch_px + 1) // per_axis)
        mask_px = min(patch_px + stride - 1, side)
        begin = [*range(0, side - mask_px, stride), side - mask_px]
        base = [square(top, left, mask_px) for top, left in product(begin, repeat=2)]
        alone = [square(top, left, patch_px) for top, left in product(range(side - patch_px + 1), repeat=2)]
        together = {frozenset[tuple[int, int]]().union(*each) for each in combinations_with_replacement(alone, patches)}
        return cls(base, patches, list(together))

    def columns(self, votes: Sequence[int | None], clean: int | None) -> dict[str, Any]:
        """What is stored of an image."""
        alone = votes[: len(self.masks)]
        uniform = [all(votes[vote] == own for vote in row) for row, own in zip(self.rows, alone, strict=True)]
        counts = Counter(alone)
        majority = min(alone, key=lambda label: (-counts[label], label))
        prediction = majority
        if len(counts) > 1:
            winners = (own for own, holds in zip(alone, uniform, strict=True) if own != majority and holds)
            prediction = next(winners, majority)
        return {
            "prediction": prediction,
            "recovery_certified": all(
                any(uniform[mask] and alone[mask] == prediction for mask in covering) for covering in self.covering
            ),
            "recovery_published": len(set(votes)) == 1,
            "detection_certified": None if clean is None else set(alone) == {clean},
        }

    def may_be_null(self, votes: Sequence[int | None], vote: int) -> bool:
        """Whether no row that this vote belongs to can be uniform, for what other votes say."""
        return vote >= len(self.masks) and all(
            any(other != vote and votes[other] not in (None, votes[mask]) for other in row)
            for mask, row in enumerate(self.rows)
            if vote in row
        )


def square(top: int, left: int, side: int) -> Pixels:
    return frozenset(product(range(top, top + side), range(left, left + side)))


def some_votes(masks: LiteralMasks, index: int, label: int, classes: int) -> list[int]:
    """Votes of an image: by its index all agree, all but one pair, one mask, or one row, or they are random."""
    random = np.random.default_rng(index)
    other, count = (label + 1) % classes, len(masks.votes)
    votes = [label] * count
    match index % 5:
        case 1:
            votes[-1] = other
        case 2:
            votes[0] = other
        case 3:
            for vote in masks.rows[1]:
                votes[vote] = other
        case 4:
            votes = random.integers(0, classes, count).tolist()
    return votes


def left_out(masks: LiteralMasks, votes: list[int]) -> list[int | None]:
    """The votes of an early exit: one after the other, those that decide nothing are left out."""
    kept: list[int | None] = [*votes]
    for vote in range(len(votes)):
        if masks.may_be_null(kept, vote):
            kept[vote] = None
    return kept


def settle(row: Row, masks: LiteralMasks, votes: Sequence[int | None]) -> None:
    """Votes, with all that follows from them."""
    row |= masks.columns(votes, row["clean_prediction"]) | dict.fromkeys(NOT_OF_MASKS)
    row |= {"votes": [*votes], "margins": [None if vote is None else 1.0 for vote in votes]}


def as_masks(run: Path, copy: Path, ablation: dict[str, Any], votes_of: Callable[[Row], Sequence[int | None]]) -> Path:
    """A copy of a run of columns, as if masks had voted.

    Args:
        run: the run; its rows keep all that does not follow from votes.
        copy: the new folder.
        ablation: of kind mask, against square patches.
        votes_of: the votes of each row that has some.
    """
    shutil.copytree(run, copy)
    record = json.loads((copy / "run.json").read_text())
    side = record["job"]["preprocess"]["crop"]
    record["job"]["ablation"] = DEFAULTS | ablation
    record["identity"]["ablation"] = {
        key: value for key, value in ablation.items() if key not in DEFAULTS or value != DEFAULTS[key]
    }
    canonical = json.dumps(record["identity"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    record["run_id"] = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    (copy / "run.json").write_text(json.dumps(record))
    masks = LiteralMasks.of(ablation, side)
    every = []
    for number in range(len([*(copy / "votes").iterdir()])):
        file = file_of(copy, number)
        rows = rows_of(file)
        for row in rows:
            row |= dict.fromkeys(CERTIFIED)
            if row["votes"] is not None:
                settle(row, masks, votes_of(row))
        schema = _schema(pq.read_schema(file), len(masks.votes))
        geometry = record["job"]["ablation"] | {"crop": side}
        write(file, rows, renew=True, schema=schema, run_id=record["run_id"], geometry=geometry)
        every += rows
    entry = _certified(every, DEFAULTS | ablation, labelled=record["job"]["images"]["label"] is not None)
    accuracy = _share(every, "prediction", True) if any(row["label"] is not None for row in every) else None
    edit_json(copy / "_SUCCESS", lambda success: success.update(certified=[entry], smoothed_accuracy=accuracy))
    return copy


def _schema(found: pa.Schema, votes: int) -> pa.Schema:
    """The columns of a run of masks, from those of a run of columns."""
    fields: Iterator[pa.Field] = (
        field.with_type(pa.list_(field.type.value_type, votes)) if pa.types.is_fixed_size_list(field.type) else field
        for field in found
    )
    return pa.schema([*fields, *(pa.field(name, pa.bool_()) for name in CERTIFIED)], found.metadata)


def _share(rows: Sequence[Row], predicted: str, labelled: bool, column: str | None = None) -> float:
    """The share of images that are predicted right, or at all, and for which a column holds."""
    right = [row for row in rows if row[predicted] is not None and (not labelled or row[predicted] == row["label"])]
    return sum(column is None or bool(row[column]) for row in right) / len(rows)


def _certified(rows: Sequence[Row], ablation: dict[str, Any], *, labelled: bool) -> dict[str, Any]:
    is_clean = any(row["clean_prediction"] is not None for row in rows)
    return {
        "patch": [ablation["threat"]] * 2,
        "pixels": None,
        "patches": ablation["threat_patches"],
        "exact": _share(rows, "prediction", labelled, "recovery_certified"),
        "published": _share(rows, "prediction", labelled, "recovery_published"),
        "detection": _share(rows, "clean_prediction", labelled, "detection_certified") if is_clean else None,
    }
