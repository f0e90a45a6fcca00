"""Rows times columns: which sets of ablations a patch, or several at once, can touch.

A patch touches an ablation iff it meets the ablation's rows and meets its columns. The weights that rules sum over a
set are never negative, so a set that lies within another one does not matter.

    one patch        its sets are contacts along the vertical axis times contacts along the horizontal one
    several patches  unions of one set for each patch: listed, if that takes at most MAX_LISTED numbers; else the
                     sum over a union is bounded by the number of patches times the largest sum over one set

The sets are counted from the pixels. A formula for the number of touched ablations is wrong where ablations wrap around
and the stride does not divide the side (docs/certificates.md).

Not covered: what ablations show (geometry.py).
Source of the notion: Levine & Feizi 2020, arXiv:2002.10733.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Self

import numpy as np

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations.geometry import Geometry, Ints
from smoothcert.workers.ablations.shown import Bools
from smoothcert.workers.ablations.threats import Reach, Threat, Weights

MAX_LISTED = 1 << 24
"""Unions x ablations that are listed at most: two patches on 224 columns make up to 24,976 x 224."""


@dataclass(frozen=True)
class Touched:
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
        across = weights.reshape(-1, horizontal.shape[1]) @ horizontal.T  # one product for all images
        grid = across.reshape(len(weights), vertical.shape[1], len(horizontal))
        return (vertical @ grid).reshape(len(weights), -1)

    def places(self, sets: Ints) -> Ints:
        row, column = np.divmod(sets, len(self.horizontal))
        return np.stack([self.top[row], self.left[column]], axis=-1)[:, None]


@dataclass(frozen=True)
class Unions:
    """The sets that several patches touch together; patches at one place touch less than those at two.

    Attributes:
        one: of one of the patches.
        members: [sets, patches], the set of `one` that each patch touches.
        ablations: [sets, ablations], float32: 1 where the union holds the ablation.
    """

    one: Touched
    members: Ints
    ablations: Weights
    is_bound: bool = False

    @classmethod
    def of(cls, one: Touched, patches: int) -> Self:
        sets = (one.vertical[:, None, :, None] & one.horizontal[None, :, None, :]).reshape(one.num_sets, -1)
        members = np.array(list(combinations(range(one.num_sets), patches)))
        unions = sets[members[:, 0]]
        for patch in range(1, patches):
            unions = unions | sets[members[:, patch]]
        return cls(one, members, unions.astype(np.float32))

    @property
    def num_sets(self) -> int:
        return len(self.members)

    @property
    def num_ablations(self) -> int:
        return self.ablations.shape[1]

    def sums(self, weights: Weights) -> Weights:
        return weights @ self.ablations.T

    def places(self, sets: Ints) -> Ints:
        return np.concatenate([self.one.places(self.members[sets, patch]) for patch in range(self.members.shape[1])], 1)


@dataclass(frozen=True)
class BoundedUnions:
    """A bound for several patches together; its one set stands for all unions."""

    one: Touched
    patches: int
    is_bound: bool = True
    num_sets: int = 1

    @property
    def num_ablations(self) -> int:
        return self.one.num_ablations

    def sums(self, weights: Weights) -> Weights:
        """A union weighs at most what its parts weigh together."""
        return self.patches * self.one.sums(weights).max(axis=1, keepdims=True)

    def places(self, sets: Ints) -> Ints:
        """-1 for every coordinate, because the bound belongs to no place."""
        return np.full((len(sets), self.patches, 2), -1)


def reach(geometry: Geometry, threat: Threat) -> Reach:
    """The largest sets that a threat touches; errors as for `Touched.everywhere`."""
    return _reach_of_one(geometry, threat) if threat.patches == 1 else _reach_of_several(geometry, threat)


@lru_cache(maxsize=1024)  # a search for the largest square asks for the same ones again and again
def _reach_of_one(geometry: Geometry, threat: Threat) -> Touched:
    return Touched.everywhere(geometry, threat.height, threat.width).maximal()


@lru_cache(maxsize=8)  # up to 64 MiB each
def _reach_of_several(geometry: Geometry, threat: Threat) -> Reach:
    one = _reach_of_one(geometry, threat._replace(patches=1))
    patches = min(threat.patches, one.num_sets)  # once each set has a patch, another adds nothing
    if patches == 1:
        return one
    if comb(one.num_sets, patches) * one.num_ablations <= MAX_LISTED:
        return Unions.of(one, patches)
    return BoundedUnions(one, patches)


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
