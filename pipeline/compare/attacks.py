"""What attacks say about two runs: both brackets, and the images that fell in one run and stood in the other.

Not covered: the bracket of one run (pipeline/bracket.py), how it is printed (verdict.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from smoothcert.pipeline.bracket import Bracket, brackets_of, patch_attacks_of
from smoothcert.workers.runs.run import Run
from smoothcert.workers.studies.study import StoredStudy

_COLUMNS = ["shard", "key", "sha256", "label", "prediction", "fell", "becomes", "top", "left"]


class Fallen(NamedTuple):
    """An image that fell in one run and stood in the other.

    Attributes:
        shard, key: which image.
        label: in the run in which it fell; None without one.
        prediction: of that run, without the patch.
        becomes: its prediction with the patch.
        top, left: where the patch lies, in pixels.
    """

    shard: str
    key: str
    label: int | None
    prediction: int
    becomes: int
    top: int
    left: int


@dataclass(frozen=True)
class AttackedChange:
    """What attacks with patches of one size say about two runs.

    Attributes:
        base, new: the bracket of either run, over all its images.
        both: how many images were attacked in both runs; they are the same if shard, key and SHA-256 are equal.
        fell_in_base, fell_in_new: those of them that fell in this run alone.
    """

    base: Bracket
    new: Bracket
    both: int
    fell_in_base: tuple[Fallen, ...]
    fell_in_new: tuple[Fallen, ...]

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.base.patch


def attacked_in_both(base: Run, new: Run) -> tuple[AttackedChange, ...]:
    """The sizes of patches that finished attacks tried in both runs, ascending.

    Args:
        base, new: the runs, complete.
    Raises:
        RunError: a file is damaged.
    """
    before, after = patch_attacks_of(base), patch_attacks_of(new)
    sizes = sorted(before.keys() & after.keys())
    base_brackets, new_brackets = (
        brackets_of(run, {size: attacks[size] for size in sizes}) for run, attacks in ((base, before), (new, after))
    )
    return tuple(
        _change(base_brackets[size], new_brackets[size], _attacked(before[size]), _attacked(after[size]))
        for size in sizes
    )


_Attacked = dict[tuple[str, str, bytes], dict[str, Any]]
"""Rows by shard, key and SHA-256 of the image."""


def _attacked(studies: Iterable[StoredStudy]) -> _Attacked:
    """A row for each image that was attacked: one that fell, if any did."""
    found: _Attacked = {}
    for study in studies:
        for row in study.rows(_COLUMNS).to_pylist():
            image = row["shard"], row["key"], row["sha256"]
            if row["fell"] or (row["fell"] is not None and image not in found):
                found[image] = row
    return found


def _change(base: Bracket, new: Bracket, before: _Attacked, after: _Attacked) -> AttackedChange:
    both = sorted(before.keys() & after.keys())
    return AttackedChange(
        base,
        new,
        len(both),
        tuple(_fallen(before[image]) for image in both if before[image]["fell"] and not after[image]["fell"]),
        tuple(_fallen(after[image]) for image in both if after[image]["fell"] and not before[image]["fell"]),
    )


def _fallen(row: dict[str, Any]) -> Fallen:
    return Fallen(**{name: row[name] for name in Fallen._fields})
