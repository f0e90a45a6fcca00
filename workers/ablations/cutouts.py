"""Cutout: squares at any places are hidden. Networks learn under it; nothing votes.

There are too many places to list, so an ablation's number holds them: the place of the first square is the remainder
of its division by the number of pixels, and the quotient holds the others.

Source: DeVries & Taylor 2017, arXiv:1708.04552; two squares, as Xiang et al. 2022, arXiv:2108.09135, train.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smoothcert.manifests.ablation import Fill
from smoothcert.workers.ablations.shown import Array, Bools


@dataclass(frozen=True, eq=False)
class CutoutSquares:
    """Every choice of places. `Painted` explains the other properties and methods.

    Attributes:
        height, width: of the image, in pixels.
        side: of a square; its middle is a pixel of the image, so that it may reach over the edge.
        count: number of squares.
        fill: what hidden pixels become.
    """

    height: int
    width: int
    side: int
    count: int
    fill: Fill

    @property
    def num_ablations(self) -> int:
        return (self.height * self.width) ** self.count

    @cached_property
    def tables(self) -> tuple[Array, ...]:
        return _hidden(self.height, self.side), _hidden(self.width, self.side)

    def visible(self, ablations: Array, tables: Sequence[Array] | None = None) -> Array:
        rows, columns = tables or self.tables
        left, pixels = ablations, self.height * self.width
        hidden: Array = False
        for _ in range(self.count):
            place = left % pixels
            hidden = hidden | (rows[place // self.width][:, :, None] & columns[place % self.width][:, None, :])
            left = left // pixels
        return ~hidden


def _hidden(length: int, side: int) -> Bools:
    """[places, length]: the pixels along one axis that a square with its middle at each pixel hides."""
    first = np.arange(length)[:, None] - side // 2
    pixels = np.arange(length)
    hidden: Bools = (pixels >= first) & (pixels < first + side)
    return hidden
