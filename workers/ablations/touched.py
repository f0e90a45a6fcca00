"""Rows times columns: which sets of ablations a patch, or several at once, can touch.

A patch touches an ablation iff it meets the ablation's rows and meets its columns. The weights that rules sum over a
set are never negative, so a set that lies within another one does not matter.

    one patch        its sets are contacts along the vertical axis times contacts along the horizontal one
    two on one axis  unions of two arcs of neighbouring ablations, whose sums are differences of running sums
    several patches  unions of one set for each patch: listed, if that takes at most MAX_LISTED numbers; else the
                     sum over a union is bounded by the number of patches times the largest sum over one set

The sets are counted from the pixels. A formula for the number of touched ablations is wrong where ablations wrap around
and the stride does not divide the side (docs/certificates.md).

Not covered: what ablations show (geometry.py).
Source of the notion: Levine & Feizi 2020, arXiv:2002.10733.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from math import comb
from typing import Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations.geometry import Geometry, Ints
from smoothcert.workers.ablations.shown import Bools
from smoothcert.workers.ablations.threats import Heaviest, Reach, Threat, Weights, parts

MAX_LISTED = 1 << 24
"""Unions x ablations that are listed at most: three patches on 56 columns make up to 27,720 x 56."""


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
        across = weights.reshape(-1, horizontal.shape[1]) @ horizontal.T  # one product for all images
        grid = across.reshape(len(weights), vertical.shape[1], len(horizontal))
        return (vertical @ grid).reshape(len(weights), self.num_sets)

    def places(self, sets: Ints) -> Ints:
        row, column = np.divmod(sets, len(self.horizontal))
        return np.stack([self.top[row], self.left[column]], axis=-1)[:, None]


@dataclass(frozen=True)
class Pairs(Reach):
    """The sets that two patches touch together, of columns or of rows.

    Each patch touches an arc: neighbouring ablations, on a circle where they wrap around. No arc lies within another,
    so in the order of their first ablations they are also in the order of their ends. Ablations are numbered from the
    first of arc 0 on, twice around the circle: arc i holds first[i] to end[i] - 1, and on the second round that plus A.

    Two arcs either join, because one begins where the other is or ends, or they are apart. Of the arcs that join arc i
    from the right, the last one gives the largest union. Those apart from arc i and after it are neighbours, from_[i]
    to before upto[i]. So the heaviest union is found among N joined ones and N sums of an arc and the heaviest one in a
    range (docs/certificates.md, section 4).

    Attributes:
        one: of one of the patches.
        turned: [2 A], the ablations in the order above.
        first, end: [N], as above.
        joined: [N], the last arc that joins arc i from the right, i itself if none does.
        joined_end: [N], where the union of both ends; at most A after its begin.
        from_, upto: [N], as above.
    """

    one: Touched
    turned: Ints
    first: Ints
    end: Ints
    joined: Ints
    joined_end: Ints
    from_: Ints
    upto: Ints
    is_bound: bool = False

    @classmethod
    def of(cls, one: Touched) -> Self:
        """All pairs of sets of columns or of rows.

        Args:
            one: of one of the patches, without contacts that lie within another; two at least.
        """
        sets = one.sets
        num_arcs, num_ablations = sets.shape
        begin = (sets & ~np.roll(sets, 1, axis=1)).argmax(axis=1)
        first = (begin - begin[0]) % num_ablations
        end = first + sets.sum(axis=1)
        turned = (begin[0] + np.arange(2 * num_ablations)) % num_ablations
        held = (turned[:num_ablations] - begin[:, None]) % num_ablations < (end - first)[:, None]
        if not ((np.diff(first) > 0).all() and (held == sets[:, turned[:num_ablations]]).all()):
            raise ValueError("the sets are not arcs in order")
        arcs, round_ = np.arange(num_arcs), num_ablations
        last = np.searchsorted(np.concatenate([first, first + round_]), end, side="right") - 1
        joined_end = np.minimum(np.concatenate([end, end + round_])[last], first + round_)
        from_ = np.minimum(last + 1, num_arcs)
        upto = np.maximum(np.searchsorted(end, first + round_, side="right"), from_)
        assert (last >= arcs).all()
        return cls(one, turned, first, end, last % num_arcs, joined_end, from_, upto)

    @property
    def num_sets(self) -> int:
        return comb(self.one.num_sets, 2)

    @property
    def num_ablations(self) -> int:
        return self.one.num_ablations

    def sums(self, weights: Weights) -> Weights:
        running, around = self._running(weights).T, self.num_ablations
        left, right = np.triu_indices(self.one.num_sets, 1)
        arcs = running[:, self.end] - running[:, self.first]
        sums = (arcs[:, left] + arcs[:, right]).astype(np.float32)
        # What both hold is counted once: where the right one begins inside the left one, and the other way round.
        for begin, end in ((self.first[right], self.end[left]), (self.first[left] + around, self.end[right])):
            meet = np.flatnonzero(begin < end)
            sums[:, meet] -= running[:, end[meet]] - running[:, begin[meet]]
        return sums

    def heaviest(self, weights: Weights) -> Heaviest:
        found = Heaviest(np.zeros(len(weights), np.float32), np.zeros(len(weights), np.int64))
        for part in parts(len(weights), 8 * self.num_ablations):
            found.sums[part], found.sets[part] = self._heaviest(weights[part])
        return found

    def _heaviest(self, weights: Weights) -> Heaviest:
        running = self._running(weights)
        arcs = running[self.end] - running[self.first]
        joined = running[self.joined_end] - running[self.first]
        apart = arcs + _largest_in_ranges(arcs, self.from_, self.upto)
        sums = np.maximum(joined, apart).max(axis=0)
        left = ((joined == sums) | (apart == sums)).argmax(axis=0)
        best_apart = sums - arcs[left, np.arange(len(sums))]
        others = np.arange(len(arcs), dtype=np.int32)[:, None]
        is_after = others >= self.from_[left].astype(np.int32)
        after = (is_after & (arcs == best_apart)).argmax(axis=0)  # the first one is in the range if any is
        is_joined = joined[left, np.arange(len(sums))] == sums
        return Heaviest(sums.astype(np.float32), self._set_of(left, np.where(is_joined, self.joined[left], after)))

    def _running(self, weights: Weights) -> NDArray[np.int32]:
        """[2 A + 1, images]: the sum of the weights before each ablation, twice around the circle."""
        whole = weights.astype(np.int32)[:, self.turned]
        running = np.zeros((len(weights), len(self.turned) + 1), np.int32)
        np.cumsum(whole, axis=1, out=running[:, 1:])  # of float32, it takes eight times as long
        return np.ascontiguousarray(running.T)

    def _set_of(self, one: Ints, other: Ints) -> Ints:
        """The number of each pair, in lexicographic order; with itself, a set is a part of any pair that holds it."""
        other = np.where(one == other, (one + 1) % self.one.num_sets, other)
        left, right = np.minimum(one, other), np.maximum(one, other)
        return self._first_set(left) + right - left - 1

    def places(self, sets: Ints) -> Ints:
        return np.concatenate([self.one.places(arcs) for arcs in self._arcs_of(sets)], axis=1)

    def _arcs_of(self, sets: Ints) -> tuple[Ints, Ints]:
        """The two arcs of each pair."""
        first_sets = self._first_set(np.arange(self.one.num_sets - 1))
        left = np.searchsorted(first_sets, sets, side="right") - 1
        return left, sets - first_sets[left] + left + 1

    def unions(self, sets: Ints) -> Bools:
        """[n, ablations]: which ablations each of the n sets holds."""
        left, right = self._arcs_of(sets)
        return self.one.sets[left] | self.one.sets[right]

    def _first_set(self, left: Ints) -> Ints:
        """The number of the first pair whose left arc is this one."""
        return left * self.one.num_sets - left * (left + 1) // 2


def _largest_in_ranges(values: NDArray[np.int32], start: Ints, end: Ints) -> NDArray[np.int32]:
    """[ranges, images]: the largest of the values [n, images], all 0 or more, from each start to before its end.

    If there is none, it is so far below 0 that it stays there when a sum is added. Two overlapping ranges of 1, 2,
    4, ... values make every range.
    """
    largest = np.full((len(start), values.shape[1]), np.iinfo(np.int32).min, np.int32)
    wide, length = values, end - start
    for power in range(int(length.max(initial=0)).bit_length()):
        these = np.flatnonzero(length >> power == 1)
        largest[these] = np.maximum(wide[start[these]], wide[end[these] - (1 << power)])
        wide = np.maximum(wide[: -(1 << power)], wide[1 << power :])
    return largest


@dataclass(frozen=True)
class Unions(Reach):
    """The sets that several patches touch together; patches at one place touch less than those at two.

    They are listed when they are first asked for: whether a claim holds is often clear without them.

    Attributes:
        one: of one of the patches.
        patches: how many there are, at most as many as `one` has sets.
    """

    one: Touched
    patches: int
    is_bound: bool = False

    @cached_property
    def members(self) -> Ints:
        """[sets, patches], the set of `one` that each patch touches."""
        return np.array(list(combinations(range(self.one.num_sets), self.patches)))

    @cached_property
    def ablations(self) -> Weights:
        """[sets, ablations], float32: 1 where the union holds the ablation."""
        sets = self.one.sets
        unions = sets[self.members[:, 0]]
        for patch in range(1, self.patches):
            unions = unions | sets[self.members[:, patch]]
        return unions.astype(np.float32)

    @property
    def num_sets(self) -> int:
        return comb(self.one.num_sets, self.patches)

    @property
    def num_ablations(self) -> int:
        return self.one.num_ablations

    def sums(self, weights: Weights) -> Weights:
        return weights @ self.ablations.T

    def places(self, sets: Ints) -> Ints:
        return np.concatenate([self.one.places(self.members[sets, patch]) for patch in range(self.patches)], 1)


@dataclass(frozen=True)
class BoundedUnions(Reach):
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
    return reach_of_one(geometry, threat) if threat.patches == 1 else _reach_of_several(geometry, threat)


@lru_cache(maxsize=1024)  # a search for the largest square asks for the same ones again and again
def reach_of_one(geometry: Geometry, threat: Threat) -> Touched:
    """The largest sets that one of the patches touches; errors as for `Touched.everywhere`."""
    return Touched.everywhere(geometry, threat.height, threat.width).maximal()


@lru_cache(maxsize=8)  # up to 64 MiB each
def _reach_of_several(geometry: Geometry, threat: Threat) -> Reach:
    one = reach_of_one(geometry, threat._replace(patches=1))
    patches = min(threat.patches, one.num_sets)  # once each set has a patch, another adds nothing
    if patches == 1:
        return one
    if patches == 2 and 1 in (one.vertical.size, one.horizontal.size):
        return _pairs(one)
    if comb(one.num_sets, patches) * one.num_ablations <= MAX_LISTED:
        return Unions(one, patches)
    return BoundedUnions(one, patches)


@lru_cache(maxsize=1024)
def _pairs(one: Touched) -> Pairs:
    return Pairs.of(one)


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
