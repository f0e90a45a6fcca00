"""The ablations of an image, and which of them a patch touches, defined pixel by pixel.

An ablation shows the pixels of some rows and some columns. A patch touches it if it meets one of those rows and one of
those columns. So the touched ablations are a product: vertical offsets whose rows the patch meets, times horizontal
offsets whose columns it meets. A column shows all rows, and a row all columns.

This is the checker's own definition. It shares no code with workers/ablations/, and it is short rather than fast: each
offset lists its pixels, and a patch is tried at every place.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Frame:
    """The ablations of an image of `side` x `side` pixels; lengths are in pixels."""

    kind: Literal["column", "row", "block"]
    size: int
    stride: int
    edges: Literal["wrap", "inside"]
    side: int

    @property
    def offsets(self) -> range:
        """Where ablations begin, along a side that is not shown as a whole."""
        return range(0, self.side if self.edges == "wrap" else self.side - self.size + 1, self.stride)

    @property
    def grid(self) -> tuple[int, int]:
        """Number of vertical and of horizontal offsets."""
        return (1 if self.kind == "column" else len(self.offsets)), (1 if self.kind == "row" else len(self.offsets))

    @property
    def num_ablations(self) -> int:
        vertical, horizontal = self.grid
        return vertical * horizontal


class Touched(NamedTuple):
    """Which offsets the patches of one size meet: 1 where place and offset meet, else 0.

    Attributes:
        down: [places down, vertical offsets].
        across: [places across, horizontal offsets].
        number: [places down, places across], |T|, how many ablations are touched there.
    """

    down: Floats
    across: Floats
    number: Floats


@lru_cache(maxsize=512)
def touched_by(frame: Frame, patch_px: int) -> Touched:
    """The touched sets of a square patch; places that meet the same offsets count once."""
    shown = _shown(frame)
    places = range(frame.side - patch_px + 1)
    sets = {shown[place : place + patch_px].any(axis=0).tobytes() for place in places}
    met = np.array([np.frombuffer(each, bool) for each in sets], np.float32)
    whole = np.ones((1, 1), np.float32)
    down, across = (whole if frame.kind == "column" else met), (whole if frame.kind == "row" else met)
    return Touched(down, across, np.outer(down.sum(axis=1), across.sum(axis=1)))


@lru_cache(maxsize=8)
def most_touched(frame: Frame) -> Ints:
    """[side]: D of the squares of 1, 2, ... pixels, the most ablations that one touches at any place."""
    seen = np.concatenate([np.zeros((1, len(frame.offsets)), int), _shown(frame).cumsum(axis=0)])
    along_one_axis = np.array(
        [(seen[patch_px:] > seen[:-patch_px]).sum(axis=1).max() for patch_px in range(1, frame.side + 1)]
    )
    return along_one_axis**2 if frame.kind == "block" else along_one_axis


def _shown(frame: Frame) -> Bools:
    """[pixels, offsets]: whether the offset shows the pixel, along one axis."""
    shown = np.zeros((frame.side, len(frame.offsets)), bool)
    for number, offset in enumerate(frame.offsets):
        shown[np.arange(offset, offset + frame.size) % frame.side, number] = True
    return shown
