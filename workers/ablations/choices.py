"""Choices of some of many things, by their numbers, without a list of them."""

from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np

from smoothcert.workers.ablations.geometry import Ints


@dataclass(frozen=True)
class Choices:
    """All choices of `chosen` of `number` things, numbered in lexicographic order: 0 1, 0 2, 0 3, 1 2, ..."""

    number: int
    chosen: int

    def __len__(self) -> int:
        return comb(self.number, self.chosen)

    def members(self, choices: Ints) -> Ints:
        """[n, chosen], ascending: what each of the n choices holds."""
        if self.chosen == self.number:  # however many: no table of sizes
            return np.tile(np.arange(self.number), (len(choices), 1))
        members, left = np.zeros((len(choices), self.chosen), np.int64), len(self) - 1 - choices
        for place in range(self.chosen):  # of the choices with the same members before, those that come later
            later = self._sizes[:, self.chosen - place]
            behind = np.searchsorted(later, left, side="right") - 1
            members[:, place], left = self.number - 1 - behind, left - later[behind]
        return members

    def holding(self, things: Ints) -> Ints:
        """[n]: the number of a choice that holds these things [n, chosen], in any order; if some are equal, others
        complete them.
        """
        if self.chosen == self.number:
            return np.zeros(len(things), np.int64)
        members = np.sort(things, axis=1)
        fewer = np.flatnonzero((members[:, 1:] == members[:, :-1]).any(axis=1))
        if len(fewer):
            is_other = np.ones((len(fewer), self.number), bool)
            np.put_along_axis(is_other, members[fewer], values=False, axis=1)
            members[fewer] = np.sort(is_other.argsort(axis=1, kind="stable")[:, : self.chosen], axis=1)
        numbers = np.full(len(members), len(self) - 1)
        for place in range(self.chosen):
            numbers -= self._sizes[self.number - 1 - members[:, place], self.chosen - place]
        return numbers

    @cached_property
    def _sizes(self) -> Ints:
        """[n, k]: how many choices of k of n things there are, or a larger number than needed."""
        sizes = np.zeros((self.number, self.chosen + 1), np.int64)
        sizes[:, 0] = 1
        for number in range(1, self.number):
            sizes[number, 1:] = np.minimum(sizes[number - 1, 1:] + sizes[number - 1, :-1], 1 << 60)
        return sizes
