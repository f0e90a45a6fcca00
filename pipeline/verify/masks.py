"""The masks of double masking, and which of them hide a patch, defined pixel by pixel.

Along an axis of n pixels, for a patch of p pixels and at most k positions, the stride is s = ceil((n - p + 1) / k), and
a mask has p + s - 1 pixels. Masks begin at 0, s, 2 s, ..., and the last one ends with the image. Base masks are the
products of both axes, row by row. A mask is the union of as many base masks as there are patches, or of fewer. A vote
hides one or two masks. Votes are in the order of how many base masks they hide, then of which; masks are the first.

A threat of N pixels is every rectangle of so many. Its base masks are those of a few rectangles, from flat to tall: one
for the heights a to b, which is b high and as wide as a height of a allows. From a = 1 on, b is as large as a rectangle
of 2 N pixels allows, and the next a is b + 1.

A certificate depends on the masks that hide all patches at some place: a covering set for each place. If one covering
set contains another, it decides nothing.

This is the checker's own definition. It shares no code with workers/ablations/. Every mask is painted, and a patch is
tried at every place.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_VOTES = 2**14
"""Of one image."""
MAX_POSITIONS = 180
"""Along one axis; more masks have more than MAX_VOTES votes."""


class Rectangle(NamedTuple):
    """Some pixels of an image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Masks:
    """The masks of an image of `side` x `side` pixels.

    Attributes:
        threat: height and width of each patch, or the largest number of its pixels.
        per_axis: most positions of a mask along an axis.
        patches: how many there are at once.
        early_exit: pairs that decide nothing have no vote.
    """

    threat: tuple[int, int] | int
    per_axis: int
    patches: int
    early_exit: bool
    side: int

    @property
    def base(self) -> tuple[Rectangle, ...]:
        """The base masks, in order."""
        return _base(self)

    @property
    def num_masks(self) -> int:
        return sum(comb(len(self.base), size) for size in range(1, self.patches + 1))

    @property
    def num_ablations(self) -> int:
        """Number of votes."""
        return sum(comb(len(self.base), size) for size in range(1, 2 * self.patches + 1))

    @property
    def hides_everything(self) -> bool:
        """Whether a vote hides the whole image."""
        return _hides_everything(self)

    @property
    def unions(self) -> Ints:
        """[masks, masks]: the position of the vote that hides both masks."""
        return _unions(self)

    @property
    def covering(self) -> Bools:
        """[sets, masks]: the smallest covering sets."""
        return _covering(self)


def positions(side: int, patch_px: int, per_axis: int) -> tuple[list[int], int]:
    """Where the masks begin along one axis, and their length.

    Raises:
        ValueError: there are more than MAX_POSITIONS.
    """
    stride = -(-(side - patch_px + 1) // per_axis)
    length = min(patch_px + stride - 1, side)
    last = side - length
    before = range(0, last, stride)
    if len(before) >= MAX_POSITIONS:
        raise ValueError(f"ablation gives more than {MAX_VOTES} votes")
    return [*before, last], length


@lru_cache(maxsize=64)
def _base(masks: Masks) -> tuple[Rectangle, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(_mask_set(masks, *patch) for patch in _made_for(masks))))


def _mask_set(masks: Masks, height: int, width: int) -> Iterator[Rectangle]:
    (tops, mask_height), (lefts, mask_width) = (positions(masks.side, px, masks.per_axis) for px in (height, width))
    return (Rectangle(top, left, mask_height, mask_width) for top in tops for left in lefts)


@lru_cache(maxsize=64)
def _hides_everything(masks: Masks) -> bool:
    return any(
        _painted(masks, vote).all()
        for vote in combinations(range(len(masks.base)), min(2 * masks.patches, len(masks.base)))
        if sum(masks.base[each].height * masks.base[each].width for each in vote) >= masks.side**2
    )


def _painted(masks: Masks, vote: Iterable[int]) -> Bools:
    """[side, side]: the pixels that a vote hides."""
    hidden = np.zeros((masks.side, masks.side), bool)
    for top, left, height, width in (masks.base[each] for each in vote):
        hidden[top : top + height, left : left + width] = True
    return hidden


@lru_cache(maxsize=8)
def members(masks: Masks) -> tuple[tuple[int, ...], ...]:
    """The base masks that each vote hides."""
    numbers = range(len(masks.base))
    return tuple(chain.from_iterable(combinations(numbers, size) for size in range(1, 2 * masks.patches + 1)))


@lru_cache(maxsize=8)
def _unions(masks: Masks) -> Ints:
    votes = members(masks)
    position = {vote: number for number, vote in enumerate(votes)}
    alone = votes[: masks.num_masks]
    return np.array([[position[tuple(sorted({*one, *other}))] for other in alone] for one in alone])


@lru_cache(maxsize=8)
def _covering(masks: Masks) -> Bools:
    hidden = np.stack([_painted(masks, vote) for vote in members(masks)[: masks.num_masks]])
    sets = smallest(set(chain.from_iterable(_covering_one(hidden, *patch) for patch in _patches(masks))))
    both = sets
    for _ in range(1, masks.patches):
        both = smallest({(one & other).tobytes() for one in both for other in sets})
    return both


def _covering_one(hidden: Bools, height: int, width: int) -> Iterator[bytes]:
    """The masks that hide one patch, for each of its places: `masks` truth values as bytes."""
    seen = np.pad(hidden.cumsum(axis=1, dtype=np.int32).cumsum(axis=2, dtype=np.int32), ((0, 0), (1, 0), (1, 0)))
    inside = (
        seen[:, height:, width:] - seen[:, :-height, width:] - seen[:, height:, :-width] + seen[:, :-height, :-width]
    )
    places = (inside == height * width).reshape(len(hidden), -1).T
    return (place.tobytes() for place in places)


def smallest(sets: set[bytes]) -> Bools:
    """[sets, masks]: the sets that contain no other."""
    found = np.array([np.frombuffer(each, bool) for each in sorted(sets)])
    lacks = (~found).astype(np.float32)
    within = found.astype(np.float32) @ lacks.T == 0  # [i, j]: j contains i
    np.fill_diagonal(within, False)
    kept: Bools = found[~within.any(axis=0)]
    return kept


def _patches(masks: Masks) -> list[tuple[int, int]]:
    """The patches of the threat; those that fit into another one are left out."""
    if isinstance(masks.threat, tuple):
        return [masks.threat]
    heights = range(1, min(masks.threat, masks.side) + 1)
    tallest = {min(masks.threat // height, masks.side): height for height in heights}  # by width; a later one is taller
    return [(height, width) for width, height in tallest.items()]


def _made_for(masks: Masks) -> list[tuple[int, int]]:
    """The patches for which there are mask sets."""
    if isinstance(masks.threat, tuple):
        return [masks.threat]
    found, highest, height = [], min(masks.threat, masks.side), 0
    while height < highest:
        width = min(masks.threat // (height + 1), masks.side)
        height = max(height + 1, min(2 * masks.threat // width, highest))
        found.append((height, width))
    return found
