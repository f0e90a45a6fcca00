"""Ablations: which pixels and tokens each shows.

Every certificate rests on the sets made here.

    column     0 1 2 3 4 5 6 7
    patch      . . . . # # . .    2 wide
    ablation   . . = = = . . .    size 3, offset 2: touched

An ablation shows all pixels that lie both in its rows and in its columns, so a geometry is two small
tables: the rows each vertical offset shows, and the columns each horizontal offset shows. A column
ablation has one vertical offset that shows all rows; a row ablation the other way round; a block both.
A patch touches an ablation iff it meets its rows and meets its columns.

Covered: columns, rows and blocks of any size and stride, both edges, images of any height and width.
Nowhere is a formula used for the number of touched ablations: with wrap-around and a stride that does not
divide the side it is wrong (docs/certificates.md). Not covered: several patches at once (touched.py).
Source: Levine & Feizi 2020, arXiv:2002.10733; Salman et al. 2021, arXiv:2110.07719.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Ablation
from smoothcert.workers.ablations.touched import Reach, Threat, Touched, reach_of

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class TokenGroup(NamedTuple):
    """Ablations that show equally many tokens.

    Attributes:
        ablations: [G] positions in offset order.
        tokens: [G, tokens] token positions, row-major, ascending.
        rows: [G, tokens, token side] pixel rows of each token that are visible.
        columns: [G, tokens, token side] pixel columns of each token that are visible.
    """

    ablations: Ints
    tokens: Ints
    rows: Bools
    columns: Bools


@dataclass(frozen=True, eq=False)
class Geometry:
    """All ablations of an image.

    Attributes:
        rows: [vertical offsets, height], the pixel rows shown.
        columns: [horizontal offsets, width], the pixel columns shown.
    """

    rows: Bools
    columns: Bools

    @classmethod
    def of(cls, ablation: Ablation, height: int, width: int) -> Self:
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

    @classmethod
    def whole(cls, height: int, width: int) -> Self:
        """One ablation that hides nothing."""
        return cls(np.ones((1, height), bool), np.ones((1, width), bool))

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

    def coarser(self, times: int) -> tuple[Self, Ints]:
        """The geometry of a stride `times` as long, and which of the ablations are in it.

        Args:
            times: 1 or more.
        """
        rows, columns = np.arange(self.grid[0])[::times], np.arange(self.grid[1])[::times]
        positions = (rows[:, None] * self.grid[1] + columns).ravel()
        return type(self)(self.rows[rows], self.columns[columns]), positions

    def upsampled(self, times: int) -> Self:
        """The same ablations in the same order where every pixel is repeated `times` along both sides."""
        return type(self)(self.rows.repeat(times, axis=1), self.columns.repeat(times, axis=1))

    def touched(self, patch_height: int, patch_width: int) -> Touched:
        """What a patch touches at each place wholly inside the frame.

        Args:
            patch_height, patch_width: in pixels, 1 to the image's.
        Raises:
            RequestError: the patch is larger than the image.
        """
        if not (1 <= patch_height <= self.height and 1 <= patch_width <= self.width):
            raise RequestError(
                f"patch {patch_height} x {patch_width}: must be 1 x 1 to {self.height} x {self.width}, the image"
            )
        return Touched.everywhere(self.rows, self.columns, patch_height, patch_width)

    def reach(self, threat: Threat) -> Reach:
        """The largest sets that patches touch; errors as of `touched`."""
        return _reach_of_one(self, threat) if threat.patches == 1 else _reach_of_several(self, threat)

    def max_touched(self, patch_height: int, patch_width: int) -> int:
        """D: the most ablations that one patch of this size touches; errors as of `touched`."""
        touched = self.touched(patch_height, patch_width)
        return int(touched.vertical.sum(axis=1).max() * touched.horizontal.sum(axis=1).max())

    def token_groups(self, token_px: int, *, keep_hidden: bool = False) -> list[TokenGroup]:
        """Which tokens each ablation shows, the ablations of equal token count together.

        Args:
            token_px: side of a token; divides height and width.
            keep_hidden: count hidden tokens as shown (their pixels stay hidden).
        """
        rows = self.rows.reshape(len(self.rows), -1, token_px)
        columns = self.columns.reshape(len(self.columns), -1, token_px)
        token_rows = np.logical_or.reduce(rows, axis=2) | keep_hidden
        token_columns = np.logical_or.reduce(columns, axis=2) | keep_hidden
        shown = (token_rows[:, None, :, None] & token_columns[None, :, None, :]).reshape(self.num_ablations, -1)
        counts = shown.sum(1)
        groups = []
        for count in np.unique(counts):
            ablations = np.flatnonzero(counts == count)
            tokens = np.nonzero(shown[ablations])[1].reshape(len(ablations), count)
            vertical, horizontal = np.divmod(ablations[:, None], len(columns))
            token_row, token_column = np.divmod(tokens, columns.shape[1])
            groups.append(TokenGroup(ablations, tokens, rows[vertical, token_row], columns[horizontal, token_column]))
        return groups


@lru_cache(maxsize=1024)  # a search for the largest square asks for many, again and again
def _reach_of_one(geometry: Geometry, threat: Threat) -> Reach:
    return reach_of(geometry.touched(threat.height, threat.width), 1)


@lru_cache(maxsize=8)  # up to 64 MiB each
def _reach_of_several(geometry: Geometry, threat: Threat) -> Reach:
    return reach_of(geometry.touched(threat.height, threat.width), threat.patches)


def _spans(ablation: Ablation, side: int) -> Bools:
    """[offsets, side]: the pixels that each offset shows along one axis."""
    if ablation.size > side:
        raise RequestError(f"ablation.size: {ablation.size} is larger than the image's {side} pixels")
    end = side if ablation.edges == "wrap" else side - ablation.size + 1
    offsets = np.arange(0, end, ablation.stride)
    shown = np.zeros((len(offsets), side), bool)
    pixels = (offsets[:, None] + np.arange(ablation.size)) % side
    np.put_along_axis(shown, pixels, True, axis=1)
    return shown
