"""Rows times columns: which pixels and tokens column, row and block ablations show.

    column     0 1 2 3 4 5 6 7
    patch      . . . . # # . .    2 wide
    ablation   . . = = = . . .    size 3, offset 2: touched

An ablation shows all pixels that lie both in its rows and in its columns, so a geometry is two small tables: the rows
that each vertical offset shows, and the columns that each horizontal offset shows. A column ablation has one vertical
offset that shows all rows; a row ablation the other way round; a block has many of both.

Covered: columns, rows and blocks of any size and stride, both edges, images of any height and width.
Not covered: which ablations a patch touches (touched.py).
Source: Levine & Feizi 2020, arXiv:2002.10733; Salman et al. 2021, arXiv:2110.07719.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.ablation import Fill, WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations.shown import Array, Bools

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Geometry:
    """All ablations of an image, vertical offsets first. `Shown` explains the other properties and methods.

    Attributes:
        rows: [vertical offsets, height], the pixel rows shown.
        columns: [horizontal offsets, width], the pixel columns shown.
    """

    rows: Bools
    columns: Bools

    @classmethod
    def of(cls, ablation: WindowAblation, height: int, width: int) -> Self:
        """The geometry of a job's ablation.

        Args:
            ablation: kind, size, stride and edges.
            height, width: of the image after the crop, in pixels.
        Raises:
            RequestError: the ablation is larger than the image.
        """
        whole_height, whole_width = np.ones((1, height), bool), np.ones((1, width), bool)
        match ablation.kind:
            case "column":
                return cls(whole_height, _spans(ablation, width))
            case "row":
                return cls(_spans(ablation, height), whole_width)
            case "block":
                return cls(_spans(ablation, height), _spans(ablation, width))

    @property
    def fill(self) -> Fill:
        return "black"

    @property
    def height(self) -> int:
        return self.rows.shape[1]

    @property
    def width(self) -> int:
        return self.columns.shape[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Number of vertical and of horizontal offsets."""
        return len(self.rows), len(self.columns)

    @property
    def num_ablations(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def middle(self) -> int:
        return len(self.rows) // 2 * len(self.columns) + len(self.columns) // 2

    @property
    def tables(self) -> tuple[Array, ...]:
        return self.rows, self.columns

    def visible(self, ablations: Array, tables: Sequence[Array] | None = None) -> Array:
        rows, columns = tables or self.tables
        return rows[ablations // len(columns)][:, :, None] & columns[ablations % len(columns)][:, None, :]

    def visible_tokens(self, token_px: int) -> Bools:
        rows = np.logical_or.reduce(self.rows.reshape(len(self.rows), -1, token_px), axis=2)
        columns = np.logical_or.reduce(self.columns.reshape(len(self.columns), -1, token_px), axis=2)
        return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(self.num_ablations, -1)

    def first_pixels(self) -> Ints:
        """[ablations, 2]: top and left pixel of what each shows. One that wraps around begins before the edge."""
        tops, lefts = _first(self.rows), _first(self.columns)
        return np.stack([tops.repeat(len(lefts)), np.tile(lefts, len(tops))], axis=1)

    def touched_at(self, height: int, width: int, top: int, left: int) -> Bools:
        """[ablations]: which ablations show a pixel of a rectangle at one place."""
        rows = np.logical_or.reduce(self.rows[:, top : top + height], axis=1)
        columns = np.logical_or.reduce(self.columns[:, left : left + width], axis=1)
        touched: Bools = np.logical_and.outer(rows, columns).ravel()
        return touched

    def upsampled(self, times: int) -> Self:
        return type(self)(self.rows.repeat(times, axis=1), self.columns.repeat(times, axis=1))

    def coarser(self, times: int) -> tuple[Self, Ints]:
        """The geometry with a stride `times` as long, and the positions of its ablations among these.

        Args:
            times: 1 or more.
        """
        if times == 1:  # unions.py knows what it found for the same object
            return self, np.arange(self.num_ablations)
        rows, columns = np.arange(self.grid[0])[::times], np.arange(self.grid[1])[::times]
        positions = (rows[:, None] * self.grid[1] + columns).ravel()
        return type(self)(self.rows[rows], self.columns[columns]), positions


def _spans(ablation: WindowAblation, side: int) -> Bools:
    """[offsets, side]: the pixels that each offset shows along one axis."""
    if ablation.size > side:
        raise RequestError(f"ablation.size: {ablation.size} is larger than the image's {side} pixels")
    end = side if ablation.edges == "wrap" else side - ablation.size + 1
    offsets = np.arange(0, end, ablation.stride)
    shown = np.zeros((len(offsets), side), bool)
    pixels = (offsets[:, None] + np.arange(ablation.size)) % side
    np.put_along_axis(shown, pixels, True, axis=1)
    return shown


def _first(shown: Bools) -> Ints:
    """[offsets]: the first pixel shown, whose left neighbour around the edge is hidden; 0 if all are shown."""
    return (shown & ~np.roll(shown, 1, axis=1)).argmax(axis=1)
