"""Rows times columns: which sets of ablations several patches can touch together.

They are unions of one set for each patch.

    two patches on one axis    unions of two arcs of neighbouring ablations, whose sums are differences of running sums
    others                     unions by their numbers, if unions x ablations are at most MAX_EXACT; else the sum over
                               a union is bounded by the number of patches times the largest sum over one set

Not covered: the sets of one patch (touched.py); the heaviest union of three arcs and more (arcs.py).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import comb
from typing import Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.workers.ablations.arcs import Arcs
from smoothcert.workers.ablations.choices import Choices
from smoothcert.workers.ablations.geometry import Geometry, Ints
from smoothcert.workers.ablations.search import Partial, Search
from smoothcert.workers.ablations.shown import Bools
from smoothcert.workers.ablations.threats import Heaviest, Reach, Threat, Weights, images_at_once, parts
from smoothcert.workers.ablations.touched import Touched, reach_of_one

MAX_EXACT = 1 << 24
"""Unions x ablations of which answers are exact: three patches on 56 columns make up to 27,720 x 56."""

_SHORT_LIST = 1 << 19  # unions x ablations


class _Numbered(Reach):
    """Unions of one set for each patch, by their numbers.

    Attributes:
        one: the sets of one of the patches.
        patches: how many there are.
    """

    one: Touched
    patches: int

    @cached_property
    def choices(self) -> Choices:
        """The unions by their numbers."""
        return Choices(self.one.num_sets, self.patches)

    @property
    def num_sets(self) -> int:
        return len(self.choices)

    @property
    def num_ablations(self) -> int:
        return self.one.num_ablations

    def places(self, sets: Ints) -> Ints:
        members = self.choices.members(sets)
        return np.concatenate([self.one.places(each) for each in members.T], axis=1)

    def unions(self, sets: Ints) -> Bools:
        """[n, ablations]: which ablations each of the n sets holds."""
        members = self.choices.members(sets)
        unions = self.one.sets[members[:, 0]]
        for each in members.T[1:]:
            unions = unions | self.one.sets[each]
        return unions


@dataclass(frozen=True)
class Pairs(_Numbered):
    """The sets that two patches touch together, of columns or of rows: pairs of arcs, numbered as in arcs.py.

    Two arcs either join, because one begins where the other is or ends, or they are apart. Of the arcs that join arc i
    from the right, the last one gives the largest union. Those apart from arc i and after it are neighbours, from_[i]
    to before upto[i]. So the heaviest union is found among N joined ones and N sums of an arc and the heaviest one in a
    range (docs/certificates.md, section 4).

    Attributes:
        one: of one of the patches.
        arcs: its sets.
        last_joined: [N], the last arc that joins arc i from the right, else i itself; plus N on the second round.
        joined_end: [N], where the union of both ends; at most A after its begin.
        from_, upto: [N], as above.
    """

    one: Touched
    arcs: Arcs
    last_joined: Ints
    joined_end: Ints
    from_: Ints
    upto: Ints
    is_bound: bool = False
    is_quick: bool = True
    patches: int = 2

    @classmethod
    def of(cls, one: Touched) -> Self:
        """All pairs of sets of columns or of rows.

        Args:
            one: of one of the patches, without contacts that lie within another; two at least.
        """
        arcs = Arcs.of(one.sets)
        first, end, round_, num_arcs = arcs.first, arcs.end, arcs.num_ablations, len(arcs)
        last = np.searchsorted(np.concatenate([first, first + round_]), end, side="right") - 1
        joined_end = np.minimum(np.concatenate([end, end + round_])[last], first + round_)
        from_ = np.minimum(last + 1, num_arcs)
        upto = np.maximum(np.searchsorted(end, first + round_, side="right"), from_)
        assert (last >= np.arange(num_arcs)).all()
        return cls(one, arcs, last, joined_end, from_, upto)

    def sums(self, weights: Weights) -> Weights:
        running, around = self.arcs.running(weights).T, self.num_ablations
        first, end = self.arcs.first, self.arcs.end
        left, right = np.triu_indices(self.one.num_sets, 1)
        arcs = running[:, end] - running[:, first]
        sums = (arcs[:, left] + arcs[:, right]).astype(np.float32)
        # What both hold is counted once: where the right one begins inside the left one, and the other way round.
        for begin, stop in ((first[right], end[left]), (first[left] + around, end[right])):
            meet = np.flatnonzero(begin < stop)
            sums[:, meet] -= running[:, stop[meet]] - running[:, begin[meet]]
        return sums

    def heaviest(self, weights: Weights) -> Heaviest:
        found = Heaviest(np.zeros(len(weights), np.float32), np.zeros(len(weights), np.int64))
        for part in parts(len(weights), 8 * self.num_ablations):
            found.sums[part], found.sets[part] = self._heaviest(weights[part])
        return found

    def _heaviest(self, weights: Weights) -> Heaviest:
        running = self.arcs.running(weights)
        arcs = running[self.arcs.end] - running[self.arcs.first]
        joined = running[self.joined_end] - running[self.arcs.first]
        apart = arcs + _largest_in_ranges(arcs, self.from_, self.upto)
        sums = np.maximum(joined, apart).max(axis=0)
        left = ((joined == sums) | (apart == sums)).argmax(axis=0)
        best_apart = sums - arcs[left, np.arange(len(sums))]
        others = np.arange(len(arcs), dtype=np.int32)[:, None]
        is_after = others >= self.from_[left].astype(np.int32)
        after = (is_after & (arcs == best_apart)).argmax(axis=0)  # the first one is in the range if any is
        is_joined = joined[left, np.arange(len(sums))] == sums
        other = np.where(is_joined, self.last_joined[left] % len(arcs), after)
        return Heaviest(sums.astype(np.float32), self.choices.holding(np.stack([left, other], axis=1)))

    def sums_with_each(self, weights: Weights) -> Weights:
        """[images, N]: the sum over the heaviest set that holds an arc; weights as for `heaviest`."""
        sums = np.zeros((len(weights), self.one.num_sets), np.float32)
        for part in parts(len(weights), 8 * self.num_ablations):
            sums[part] = self._sums_with_each(weights[part]).T
        return sums

    def _sums_with_each(self, weights: Weights) -> NDArray[np.int32]:
        """The same, [N, images]."""
        running, around = self.arcs.running(weights), self.num_ablations
        first, end = self.arcs.first, self.arcs.end
        arcs, last = running[end] - running[first], self.last_joined
        joined = running[self.joined_end] - running[first]
        # From the left, the first arc that ends inside an arc or right before it; both on the second round.
        ends = np.concatenate([end, end + around])
        left = np.searchsorted(ends, first + around)
        begin, stop = np.maximum(np.concatenate([first, first + around])[left], end), end + around
        over = np.where(stop > 2 * around, around, 0)
        joined = np.maximum(joined, running[stop - over] - running[begin - over])
        twice = np.concatenate([arcs, arcs])
        apart = arcs + _largest_in_ranges(twice, last + 1, np.maximum(left, last + 1))
        return np.maximum(joined, apart)

    def heavy(self, weights: Weights) -> Ints:
        """[images]: a set that is heavy by weights [images, ablations], all 0 or more: here, the heaviest."""
        return self.heaviest(weights).sets


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
class Unions(_Numbered):
    """The sets that several patches touch together; patches at one place touch less than those at two.

    They are listed when their sums are first asked for: the heaviest one of arcs is found without a list.

    Attributes:
        one: of one of the patches.
        patches: how many there are, at most as many as `one` has sets.
        arcs: the sets of `one`, if these are of columns or of rows.
    """

    one: Touched
    patches: int
    arcs: Arcs | None = None
    is_bound: bool = False

    @cached_property
    def ablations(self) -> Weights:
        """[sets, ablations], float32: 1 where the union holds the ablation."""
        return self.unions(np.arange(self.num_sets)).astype(np.float32)

    def sums(self, weights: Weights) -> Weights:
        return weights @ self.ablations.T

    @property
    def is_quick(self) -> bool:
        """Whether the heaviest set is found without a list."""
        return self.arcs is not None

    def sums_with_each(self, weights: Weights) -> Weights:
        """[images, N]: the sum over the heaviest set that holds an arc; weights as for `heaviest`."""
        if self.arcs is None:
            raise ValueError("only unions of arcs are found without a list")
        return self.arcs.heaviest_with_each(weights, self.patches)

    def heavy(self, weights: Weights) -> Ints:
        """[images]: a set that is heavy by weights [images, ablations], all 0 or more."""
        if self.is_quick or self.is_short:
            return self.heaviest(weights).sets
        chosen = np.zeros((len(weights), self.patches), np.int64)
        for patch in range(self.patches):
            chosen[:, patch] = self.one.sums(weights).argmax(axis=1)
            weights = np.where(self.one.sets[chosen[:, patch]], 0, weights)
        return self.choices.holding(chosen)

    def heaviest(self, weights: Weights) -> Heaviest:
        if self.arcs is not None:
            sums, chosen = self.arcs.heaviest(weights, self.patches)
            return Heaviest(sums, self.choices.holding(chosen))
        if self.is_short or self._none_apart:
            return super().heaviest(weights)
        found = Heaviest(np.zeros(len(weights), np.float32), self.heavy(weights))
        for part in parts(len(weights), 2 * (self.one.num_sets + self.num_ablations)):
            sums = (weights[part] * self.unions(found.sets[part])).sum(axis=1)
            found.sums[part], found.sets[part] = self._searched(weights[part], sums, found.sets[part])
        return found

    def _searched(self, weights: Weights, sums: Weights, sets: Ints) -> Heaviest:
        """The heaviest set of each image, given one that may be, and what it weighs."""
        search = Search(self.one.num_sets, images_at_once(2 * (self.one.num_sets + self.num_ablations)))
        start = _Left(self.one, weights, np.zeros(len(weights), np.float32))
        found = search.least(start, self.patches, -sums.astype(np.float64))
        heavier = np.flatnonzero(-found.values > sums)
        sets = sets.copy()
        sets[heavier] = self.choices.holding(found.chosen[heavier])
        return Heaviest((-found.values).astype(np.float32), sets)

    @property
    def is_short(self) -> bool:
        """Whether sums over a list of all unions cost no more than a search."""
        is_small = self.num_sets * self.num_ablations <= _SHORT_LIST
        return is_small and (not self.is_quick or 2 * self.patches > self.one.num_sets)

    @cached_property
    def _none_apart(self) -> bool:
        """Whether any two sets meet, so that a search would have to try too many."""
        numbers = self.one.sets.astype(np.float32)
        return bool((numbers @ numbers.T > 0).all())


@dataclass(frozen=True)
class _Left(Partial):
    """The weights of images that are left when some sets are taken. A value is what all of these weigh, below 0.

    Attributes:
        one: the sets.
        weights: [images, ablations], 0 where a set is taken.
        taken: [images], what the sets taken weigh together.
    """

    one: Touched
    weights: Weights
    taken: Weights

    def bounds(self, sets: int, below: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002
        """A union weighs at most what its parts weigh, and none weighs more than the heaviest."""
        return -(self.taken[:, None] + sets * self.one.sums(self.weights)).astype(np.float64)

    def taking(self, images: Ints, sets: Ints) -> Self:
        weights, took = self.weights[images], self.one.sets[sets]
        taken = self.taken[images] + (weights * took).sum(axis=1)
        return type(self)(self.one, np.where(took, 0, weights), taken)


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


@lru_cache(maxsize=8)  # up to 64 MiB each
def _reach_of_several(geometry: Geometry, threat: Threat) -> Reach:
    one = reach_of_one(geometry, threat._replace(patches=1))
    patches = min(threat.patches, one.num_sets)  # once each set has a patch, another adds nothing
    if patches == 1:
        return one
    is_axis = 1 in (one.vertical.size, one.horizontal.size)
    if patches == 2 and is_axis:
        return _pairs(one)
    if comb(one.num_sets, patches) * one.num_ablations <= MAX_EXACT:
        return Unions(one, patches, Arcs.of(one.sets) if is_axis else None)
    return BoundedUnions(one, patches)


@lru_cache(maxsize=1024)
def _pairs(one: Touched) -> Pairs:
    return Pairs.of(one)
