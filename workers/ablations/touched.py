"""Which ablations a patch, or several at once, can touch.

An attacker's patch at one place touches the set T of ablations that show one of its pixels. Rules ask for
sums over T of weights that are never negative (certificates/rules.py), so of two sets of which one contains the
other only the larger matters.

    one patch        its sets are contacts along the vertical axis times contacts along the horizontal one
    several patches  unions of one set each: listed, if that takes at most MAX_LISTED numbers; else the sum
                     over a union is bounded by the number of patches times the largest sum over one set

Not covered: what ablations show (geometry.py). Source of the notion: Levine & Feizi 2020, arXiv:2002.10733.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Weights = NDArray[np.float32]

MAX_LISTED = 1 << 24
"""Unions x ablations that are listed at most: two patches on 224 columns make up to 24,976 x 224."""


class Threat(NamedTuple):
    """The attacker's patches: as many as `patches`, of `height` x `width` pixels each, wherever they please."""

    height: int
    width: int
    patches: int = 1


class Reach(Protocol):
    """The sets of ablations that a threat can touch.

    Attributes:
        is_bound: whether `sums` may be larger than what any place of the patches gives.
        num_sets: how many sums an image has.
        num_ablations: how many weights.
    """

    @property
    def is_bound(self) -> bool: ...
    @property
    def num_sets(self) -> int: ...
    @property
    def num_ablations(self) -> int: ...
    def sums(self, weights: Weights) -> Weights:
        """[images, sets]: for [images, ablations] weights of 0 or more, their sum over each set."""

    def places(self, sets: Ints) -> Ints:
        """[n, patches, 2]: top and left pixel of patches that touch each of the n sets."""


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
    def everywhere(cls, rows: Bools, columns: Bools, height: int, width: int) -> Self:
        """A contact for each pixel row and column at which the patch can start.

        Args:
            rows: [vertical offsets, image height], the pixel rows that each shows.
            columns: [horizontal offsets, image width].
            height, width: of the patch, in pixels.
        """
        vertical, horizontal = _met(rows, height), _met(columns, width)
        return cls(vertical, horizontal, np.arange(len(vertical)), np.arange(len(horizontal)))

    @property
    def num_sets(self) -> int:
        return len(self.vertical) * len(self.horizontal)

    @property
    def num_ablations(self) -> int:
        return self.vertical.shape[1] * self.horizontal.shape[1]

    def maximal(self) -> Self:
        """Without contacts that another contains."""
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
    """A bound of what several patches touch together; its one set stands for all unions."""

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
        """No place: the bound is not that of one; -1 each."""
        return np.full((len(sets), self.patches, 2), -1)


def reach_of(one: Touched, patches: int) -> Reach:
    """The largest sets that `patches` patches touch, given those of one patch."""
    one = one.maximal()
    patches = min(patches, one.num_sets)  # with a patch at each set, another adds nothing
    if patches == 1:
        return one
    if comb(one.num_sets, patches) * one.num_ablations <= MAX_LISTED:
        return Unions.of(one, patches)
    return BoundedUnions(one, patches)


def _met(shown: Bools, patch_px: int) -> Bools:
    """[places, offsets]: at each place of the patch along one axis the offsets of which it meets a pixel."""
    seen = np.concatenate([np.zeros((len(shown), 1), int), shown.cumsum(axis=1)], axis=1)
    met: Bools = seen[:, patch_px:] > seen[:, :-patch_px]
    return met.T


def _maximal(contacts: Bools) -> Ints:
    """The first of the contacts that are equal, of those that no other contains; ascending."""
    distinct, first = np.unique(contacts, axis=0, return_index=True)
    numbers = distinct.astype(np.float32)
    contained = numbers @ numbers.T == numbers.sum(axis=1)[:, None]  # [i, j]: i lies in j
    np.fill_diagonal(contained, val=False)
    return np.sort(first[~contained.any(axis=1)])
