"""Ablations and the pixels they show, walked one by one; and two kinds that no job has, to try the interface on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from smoothcert.manifests.ablation import Fill, WindowAblation
from smoothcert.workers.ablations.shown import Masks
from smoothcert.workers.ablations.threats import Reach, Threat

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Weights = NDArray[np.float32]

Pixels = frozenset[tuple[int, int]]


@st.composite
def settings_of(draw: st.DrawFn, sides: tuple[int, ...] = tuple(range(1, 13))) -> tuple[WindowAblation, int, int]:
    """An ablation that fits an image, and the image's height and width."""
    height, width = draw(st.sampled_from(sides)), draw(st.sampled_from(sides))
    kind = draw(st.sampled_from(["column", "row", "block"]))
    longest = {"column": width, "row": height, "block": min(height, width)}[kind]
    ablation = WindowAblation(
        kind=kind,
        size=draw(st.integers(1, longest)),
        stride=draw(st.integers(1, longest + 1)),
        edges=draw(st.sampled_from(["wrap", "inside"])),
    )
    return ablation, height, width


def shown_by_hand(ablation: WindowAblation, height: int, width: int) -> list[Pixels]:
    """The pixels of each ablation in offset order, walked from its offset."""

    def starts(side: int) -> list[int]:
        fits = range(side) if ablation.edges == "wrap" else range(side - ablation.size + 1)
        return [start for start in fits if start % ablation.stride == 0]

    def walked(start: int, side: int) -> list[int]:
        return [(start + step) % side for step in range(ablation.size)]

    rows = [list(range(height))] if ablation.kind == "column" else [walked(start, height) for start in starts(height)]
    columns = [list(range(width))] if ablation.kind == "row" else [walked(start, width) for start in starts(width)]
    return [frozenset(product(some_rows, some_columns)) for some_rows in rows for some_columns in columns]


@dataclass(frozen=True)
class ListedSets(Reach):
    """The sets that one patch touches, each listed, and a place of the patch for each."""

    sets: Bools  # [sets, ablations]
    corners: Ints  # [sets, 2]
    is_bound: bool = False

    @classmethod
    def of(cls, masks: Bools, threat: Threat) -> Self:
        """At every place the ablations that show a pixel of the patch."""
        assert threat.patches == 1
        heights, widths = masks.shape[1] - threat.height + 1, masks.shape[2] - threat.width + 1
        corners = np.array(list(product(range(heights), range(widths))))
        under = [masks[:, y : y + threat.height, x : x + threat.width] for y, x in corners]
        return cls(np.stack([pixels.any(axis=(1, 2)) for pixels in under]), corners)

    @property
    def num_sets(self) -> int:
        return len(self.sets)

    @property
    def num_ablations(self) -> int:
        return self.sets.shape[1]

    def sums(self, weights: Weights) -> Weights:
        return weights @ self.sets.T.astype(np.float32)

    def places(self, sets: Ints) -> Ints:
        return self.corners[sets][:, None]


@dataclass(frozen=True, eq=False)
class HiddenRectangles:
    """Each ablation shows all pixels but those of one rectangle."""

    rows: Bools  # [ablations, height], of the rectangle
    columns: Bools  # [ablations, width]

    @classmethod
    def of(cls, side: int, size: int, step: int) -> Self:
        """Squares of `size` pixels at every `step` pixels."""
        spans = np.array([[start <= pixel < start + size for pixel in range(side)] for start in range(0, side, step)])
        return cls(spans.repeat(len(spans), axis=0), np.tile(spans, (len(spans), 1)))

    @property
    def height(self) -> int:
        return self.rows.shape[1]

    @property
    def width(self) -> int:
        return self.columns.shape[1]

    @property
    def num_ablations(self) -> int:
        return len(self.rows)

    @property
    def fill(self) -> Fill:
        return "black"

    @property
    def middle(self) -> int:
        return len(self.rows) // 2

    @property
    def tables(self) -> tuple[Any, ...]:
        return self.rows, self.columns

    def visible(self, ablations: Any, tables: Sequence[Any] | None = None) -> Any:
        rows, columns = tables or self.tables
        return ~(rows[ablations][:, :, None] & columns[ablations][:, None, :])

    def visible_tokens(self, token_px: int) -> Bools:
        return Masks(self.visible(np.arange(self.num_ablations))).visible_tokens(token_px)

    def upsampled(self, times: int) -> Self:
        return type(self)(self.rows.repeat(times, axis=1), self.columns.repeat(times, axis=1))

    def coarser(self, times: int) -> tuple[Self, Ints]:
        assert times == 1
        return self, np.arange(self.num_ablations)

    def reach(self, threat: Threat) -> ListedSets:
        return ListedSets.of(self.visible(np.arange(self.num_ablations)), threat)


class ShownTokens(Masks):
    """Each ablation shows a set of square tiles of the image, wherever they lie."""

    @classmethod
    def of(cls, side: int, tile_px: int, count: int) -> Self:
        """As many ablations as `count`, each of some random tiles, one at least."""
        tiles = np.random.default_rng(0).random((count, side // tile_px, side // tile_px)) < 0.4
        tiles[:, 0, 0] |= ~tiles.any(axis=(1, 2))
        return cls(tiles.repeat(tile_px, axis=1).repeat(tile_px, axis=2))

    def coarser(self, times: int) -> tuple[Self, Ints]:
        assert times == 1
        return self, np.arange(self.num_ablations)

    def reach(self, threat: Threat) -> ListedSets:
        return ListedSets.of(self.masks, threat)


def other_kinds(side: int) -> dict[str, HiddenRectangles | ShownTokens]:
    """Kinds that are not rows times columns, on images of that side: a multiple of 4, from 8 on."""
    return {
        "hidden rectangles": HiddenRectangles.of(side, size=side // 2 + 1, step=side // 4),
        "sets of tokens": ShownTokens.of(side, tile_px=4, count=5),
        "sets of tiles of half a token": ShownTokens.of(side, tile_px=2, count=5),
    }


def touched_by_hand(shown: list[Pixels], height: int, width: int, patch: tuple[int, int]) -> set[frozenset[int]]:
    """For every place of the patch the ablations that show a pixel of it."""
    places = product(range(height - patch[0] + 1), range(width - patch[1] + 1))
    return {
        frozenset(
            position
            for position, pixels in enumerate(shown)
            if any((top + y, left + x) in pixels for y in range(patch[0]) for x in range(patch[1]))
        )
        for top, left in places
    }
