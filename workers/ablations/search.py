"""The union of several sets with the smallest value, found by bounds instead of a list of all unions.

A union of k sets has a heaviest part S. A bound says what no union is below whose heaviest part is S. So of each image,
the S with the smallest bound is tried first: S is taken, and the same is asked about the other k - 1 sets. After that
most S are out of question, because their bounds are not below what was found. A union that holds an S which was tried
before needs no second look, and where too few sets are left to make k, nothing is tried: so no union is met twice,
however close k is to the number of sets. All unions are of k different sets: a set more never raises the value.

Not covered: what a value is, and its bounds (unions.py, certificates/several.py).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.workers.ablations.geometry import Ints
from smoothcert.workers.ablations.shown import Bools

Values = NDArray[np.float64]


class Partial(Protocol):
    """Images, with some sets taken already."""

    def bounds(self, sets: int, below: Values) -> Values:
        """[images, N]: what no value is below if so many more sets are taken, and this is the heaviest of them. For one
        set it is the value.

        Args:
            sets: how many more.
            below: [images]. Numbers that are not below this one may be any that are not.
        """

    def taking(self, images: Ints, sets: Ints) -> Self:
        """Some of the images, a set taken in each."""


class Found(NamedTuple):
    """The smallest value of each image.

    Attributes:
        values: [images].
        chosen: [images, sets], the sets whose union has it, or any if the value is not below what was known before.
    """

    values: Values
    chosen: Ints


class Search(NamedTuple):
    """How to search.

    Attributes:
        num_sets: N.
        at_once: how many sets are tried at once, of all images together: bounds the memory.
        enough: a value below this one ends the search in its image.
    """

    num_sets: int
    at_once: int
    enough: float = -np.inf

    def least(
        self, partial: Partial, sets: int, least: Values, floors: Callable[[Ints], Values] | None = None
    ) -> Found:
        """The smallest value over all unions of so many sets, if it is below the least so far.

        Args:
            partial: the images.
            sets: how many to take, at most N.
            least: [images], a value that is known.
            floors: [some images, N], given these images: what no value of a union is below that holds a set.
        """
        return self._below(partial, sets, least, np.zeros((len(least), self.num_sets), bool), floors)

    def _below(
        self,
        partial: Partial,
        sets: int,
        least: Values,
        tried: Bools,
        floors: Callable[[Ints], Values] | None = None,
    ) -> Found:
        bounds = np.where(tried, np.inf, partial.bounds(sets, self._limit(least)))
        if sets == 1:
            return Found(np.minimum(least, bounds.min(axis=1)), bounds.argmin(axis=1)[:, None])
        chosen, least = np.zeros((len(least), sets), np.int64), least.copy()
        images = np.flatnonzero(bounds.min(axis=1) < self._limit(least))
        bounds = bounds[images]
        if floors is not None:
            bounds = np.maximum(bounds, floors(images))
        order = bounds.argsort(axis=1)
        ordered, rank = np.take_along_axis(bounds, order, axis=1), order.argsort(axis=1)
        last_start = np.count_nonzero(~tried[images], axis=1) - sets  # behind it, too few sets are left
        ordered[np.arange(self.num_sets) > last_start[:, None]] = np.inf
        start, width = 0, 1
        while start < self.num_sets:
            some, place = np.nonzero(ordered[:, start : start + width] < self._limit(least)[images, None])
            if not len(some):
                break
            these, one = images[some], order[some, start + place]
            before = tried[these] | (rank[some] <= (start + place)[:, None])
            found = self._below(partial.taking(these, one), sets - 1, least[these], before)
            less = np.flatnonzero(found.values < least[these])
            less = less[found.values[less].argsort(kind="stable")[::-1]]  # of an image, the smallest one stays
            least[these[less]] = found.values[less]
            chosen[these[less]] = np.column_stack([one[less], found.chosen[less]])
            start += width
            still_open = int(np.count_nonzero(np.bincount(some)))
            width = min(2 * width, max(1, self.at_once // still_open))  # few calls
        return Found(least, chosen)

    def _limit(self, least: Values) -> Values:
        """[images]: what a value must be below."""
        return np.where(least < self.enough, -np.inf, least)
