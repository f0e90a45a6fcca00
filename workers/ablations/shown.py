"""What ablations show. Engines need nothing else from a kind of ablation.

A kind keeps small tables instead of a mask for each ablation, since 50,000 masks of 224 x 224 pixels take 2.5 GB. It
makes masks on request. The tables may lie on a device: a kind indexes and combines them with operators that numpy
arrays and torch tensors share, so this room loads no torch.

Not covered: which sets of ablations a threat touches (threats.py); which tokens ablations show (tokens.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.ablation import Fill

Bools = NDArray[np.bool_]
Array = Any
"""A numpy array or a torch tensor. All arrays of one call have the same type."""


class Painted(Protocol):
    """Ablations of an image, pixel by pixel: enough for a network that computes every pixel.

    Attributes:
        height, width: of the image, in pixels.
        num_ablations: how many there are.
        tables: what `visible` reads.
        fill: what hidden pixels become: black before normalisation, or the mean that it subtracts.
    """

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def num_ablations(self) -> int: ...
    @property
    def tables(self) -> tuple[Array, ...]: ...
    @property
    def fill(self) -> Fill: ...
    def visible(self, ablations: Array, tables: Sequence[Array] | None = None) -> Array:
        """[n, height, width] bool: the pixels that each of n ablations shows.

        Args:
            ablations: [n] positions.
            tables: `self.tables`, perhaps moved to a device; None for numpy arrays.
        """


class Shown(Painted, Protocol):
    """The ablations of an image that vote, in the order of their votes.

    Attributes:
        middle: position of an ablation in the middle, on which engines are checked.
    """

    @property
    def middle(self) -> int: ...
    def visible_tokens(self, token_px: int) -> Bools:
        """[ablations, tokens]: whether a token has a visible pixel; tokens are row-major.

        Args:
            token_px: side of a token; divides height and width.
        """

    def upsampled(self, times: int) -> "Shown":
        """The same ablations in the same order, with every pixel repeated `times` along both sides."""


@dataclass(frozen=True, eq=False)
class Masks:
    """A few ablations, given pixel by pixel.

    Attributes:
        masks: [ablations, height, width], the pixels shown.
        fill: what hidden pixels become.
    """

    masks: Bools
    fill: Fill = "black"

    @classmethod
    def whole(cls, height: int, width: int) -> Self:
        """One ablation that hides nothing."""
        return cls(np.ones((1, height, width), bool))

    @classmethod
    def one_of(cls, shown: Shown, ablation: int) -> Self:
        """One ablation of several."""
        return cls(shown.visible(np.array([ablation])), shown.fill)

    @property
    def height(self) -> int:
        return self.masks.shape[1]

    @property
    def width(self) -> int:
        return self.masks.shape[2]

    @property
    def num_ablations(self) -> int:
        return len(self.masks)

    @property
    def middle(self) -> int:
        return len(self.masks) // 2

    @property
    def tables(self) -> tuple[Array, ...]:
        return (self.masks,)

    def visible(self, ablations: Array, tables: Sequence[Array] | None = None) -> Array:
        (masks,) = tables or self.tables
        return masks[ablations]

    def visible_tokens(self, token_px: int) -> Bools:
        rows, columns = self.height // token_px, self.width // token_px
        tiles = self.masks.reshape(-1, rows, token_px, columns, token_px)
        return tiles.any(axis=(2, 4)).reshape(-1, rows * columns)

    def upsampled(self, times: int) -> Self:
        return type(self)(self.masks.repeat(times, axis=1).repeat(times, axis=2), self.fill)
