"""Rows times columns: which sets of ablations one patch can touch.

A patch touches an ablation iff it meets the ablation's rows and meets its columns. So its sets are contacts along the
vertical axis times contacts along the horizontal one. The weights that rules sum over a set are never negative, so a
set that lies within another one does not matter.

The sets are counted from the pixels. A formula for the number of touched ablations is wrong where ablations wrap around
and the stride does not divide the side (docs/certificates.md).

Not covered: what ablations show (geometry.py); several patches at once (unions.py).
Source of the notion: Levine & Feizi 2020, arXiv:2002.10733.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations.geometry import Geometry, Ints
from smoothcert.workers.ablations.shown import Bools
from smoothcert.workers.ablations.threats import Reach, Threat, Weights


@dataclass(frozen=True, eq=False)
class Touched(Reach):
    """The sets that one patch touches: set (i, j) holds ablation (y, x) iff vertical[i, y] and horizontal[j, x].

    Attributes:
        vertical: [vertical contacts, vertical offsets].
        horizontal: [horizontal contacts, horizontal offsets].
        top: [vertical contacts], the first pixel row of a patch with this contact.
        left: [horizontal contacts], likewise the pixel column.
    """

    vertical: Bools
    horizontal: Bools
    top: Ints
    left: Ints
    is_bound: bool = False

    @classmethod
    def everywhere(cls, geometry: Geometry, height: int, width: int) -> Self:
        """A contact for each pixel row and column at which the patch can start.

        Args:
            geometry: of the ablations.
            height, width: of the patch, in pixels; 1 to the image's.
        Raises:
            RequestError: the patch is larger than the image.
        """
        if not (1 <= height <= geometry.height and 1 <= width <= geometry.width):
            raise RequestError(
                f"patch {height} x {width}: must be 1 x 1 to {geometry.height} x {geometry.width}, the image"
            )
        vertical, horizontal = _met(geometry.rows, height), _met(geometry.columns, width)
        return cls(vertical, horizontal, np.arange(len(vertical)), np.arange(len(horizontal)))

    @property
    def num_sets(self) -> int:
        return len(self.vertical) * len(self.horizontal)

    @property
    def num_ablations(self) -> int:
        return self.vertical.shape[1] * self.horizontal.shape[1]

    @cached_property
    def sets(self) -> Bools:
        """[sets, ablations]: which ablations each set holds."""
        return (self.vertical[:, None, :, None] & self.horizontal[None, :, None, :]).reshape(self.num_sets, -1)

    @property
    def nothing(self) -> Self:
        """One set, which holds no ablation."""
        return type(self)(self.vertical[:1] & False, self.horizontal[:1] & False, self.top[:1], self.left[:1])

    @property
    def most(self) -> int:
        """D: the size of the largest set."""
        return int(self.vertical.sum(axis=1).max() * self.horizontal.sum(axis=1).max())

    def maximal(self) -> Self:
        """The same without contacts that lie within another."""
        tops, lefts = _maximal(self.vertical), _maximal(self.horizontal)
        return type(self)(self.vertical[tops], self.horizontal[lefts], self.top[tops], self.left[lefts])

    def sums(self, weights: Weights) -> Weights:
        vertical, horizontal = self.vertical.astype(np.float32), self.horizontal.astype(np.float32)
        if vertical.size == 1:
            return weights @ horizontal.T * vertical[0, 0]
        across = weights.reshape(-1, horizontal.shape[1]) @ horizontal.T  # one product for all images
        grid = across.reshape(len(weights), vertical.shape[1], len(horizontal))
        return (vertical @ grid).reshape(len(weights), self.num_sets)

    def places(self, sets: Ints) -> Ints:
        row, column = np.divmod(sets, len(self.horizontal))
        return np.stack([self.top[row], self.left[column]], axis=-1)[:, None]


@lru_cache(maxsize=1024)  # a search for the largest square asks for the same ones again and again
def reach_of_one(geometry: Geometry, threat: Threat) -> Touched:
    """The largest sets that one of the patches touches; errors as for `Touched.everywhere`."""
    return Touched.everywhere(geometry, threat.height, threat.width).maximal()


def _met(shown: Bools, patch_px: int) -> Bools:
    """[places, offsets]: which offsets show a pixel of the patch, for each of its places along one axis."""
    seen = np.concatenate([np.zeros((len(shown), 1), int), shown.cumsum(axis=1)], axis=1)
    met: Bools = seen[:, patch_px:] > seen[:, :-patch_px]
    return met.T


def _maximal(contacts: Bools) -> Ints:
    """The positions, ascending, of the contacts that lie within no other; of equal contacts, the first."""
    distinct, first = np.unique(contacts, axis=0, return_index=True)
    numbers = distinct.astype(np.float32)
    contained = numbers @ numbers.T == numbers.sum(axis=1)[:, None]  # [i, j]: i lies in j
    np.fill_diagonal(contained, val=False)
    return np.sort(first[~contained.any(axis=1)])
