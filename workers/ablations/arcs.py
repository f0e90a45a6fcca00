"""Arcs: what one patch touches of columns or of rows, and the heaviest union of several of them.

An arc is a run of neighbouring ablations, on a circle where they wrap around. No arc lies within another, so in the
order of their first ablations they are also in the order of their ends. Ablations are numbered from the first of arc 0
on, twice around the circle of A ablations: arc i holds first[i] to end[i] - 1, and on the second round that plus A.

The heaviest union of k arcs is found from right to left, for one arc more at a time (docs/certificates.md, section 4):

    the gain behind arc j, by t more arcs  =  the larger of
        the last arc J that begins inside j or right after it: what J adds, and the gain behind J by t - 1 arcs
        an arc i apart from j and after it: its weight, and the gain behind i by t - 1 arcs

This needs a place where the circle is cut. Either no arc of the union runs over the end of the numbers, and they are
a line; or one does, and it is the first arc of a line that ends where this arc begins again.

Not covered: where patches are (touched.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.workers.ablations.geometry import Ints
from smoothcert.workers.ablations.shown import Bools
from smoothcert.workers.ablations.threats import Weights, parts

Sums = NDArray[np.int32]
"""Of weights, which are whole numbers; of float32, running sums take eight times as long."""


class HeaviestArcs(NamedTuple):
    """The heaviest union of some arcs.

    Attributes:
        sums: [images], what it weighs.
        chosen: [images, arcs], the arcs whose union it is; one of them several times if fewer are enough.
    """

    sums: Weights
    chosen: Ints


@dataclass(frozen=True, eq=False)
class Arcs:
    """Arcs in order.

    Attributes:
        turned: [2 A], the ablations in the order above.
        first, end: [N], as above.
    """

    turned: Ints
    first: Ints
    end: Ints

    @classmethod
    def of(cls, sets: Bools) -> Self:
        """Arcs from the ablations that each holds.

        Args:
            sets: [N, A], of which none lies within another; two at least.
        Raises:
            ValueError: these are no arcs.
        """
        num_ablations = sets.shape[1]
        begin = (sets & ~np.roll(sets, 1, axis=1)).argmax(axis=1)
        first = (begin - begin[0]) % num_ablations
        end = first + sets.sum(axis=1)
        turned = (begin[0] + np.arange(2 * num_ablations)) % num_ablations
        held = (turned[:num_ablations] - begin[:, None]) % num_ablations < (end - first)[:, None]
        if not ((np.diff(first) > 0).all() and (held == sets[:, turned[:num_ablations]]).all()):
            raise ValueError("the sets are not arcs in order")
        return cls(turned, first, end)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def num_ablations(self) -> int:
        return len(self.turned) // 2

    def running(self, weights: Weights) -> Sums:
        """[2 A + 1, images]: the sum of the weights [images, A] before each ablation, twice around the circle."""
        whole = weights.astype(np.int32)[:, self.turned]
        running = np.zeros((len(weights), len(self.turned) + 1), np.int32)
        np.cumsum(whole, axis=1, out=running[:, 1:])
        return np.ascontiguousarray(running.T)

    def heaviest(self, weights: Weights, arcs: int) -> HeaviestArcs:
        """The heaviest union of so many arcs, at most N, by weights [images, A], whole numbers from 0 on."""
        found = HeaviestArcs(np.zeros(len(weights), np.float32), np.zeros((len(weights), arcs), np.int64))
        for part in parts(len(weights), (arcs + 6) * len(self)):
            found.sums[part], found.chosen[part] = self._heaviest(self.running(weights[part]), arcs)
        return found

    def heaviest_with_each(self, weights: Weights, arcs: int) -> Weights:
        """[images, N]: what the heaviest union of so many arcs weighs that holds an arc; weights as for `heaviest`."""
        sums = np.zeros((len(weights), len(self)), np.float32)
        for part in parts(len(weights), (arcs + 6) * len(self)):
            running = self.running(weights[part])
            for arc in range(len(self)):
                sums[part, arc] = self._line_from(arc).heaviest(running, arcs)
        return sums

    def _heaviest(self, running: Sums, arcs: int) -> HeaviestArcs:
        images = np.arange(running.shape[1])
        best, best_line = np.full(len(images), -1, np.int32), np.zeros(len(images), np.int64)
        for number, line in enumerate(self._lines):
            sums = line.heaviest(running, arcs)
            better = sums > best
            best[better], best_line[better] = sums[better], number
        chosen = np.zeros((len(images), arcs), np.int64)
        for number in np.unique(best_line):
            these = images[best_line == number]
            chosen[these] = self._lines[number].chosen(running[:, these], arcs)
        return HeaviestArcs(best.astype(np.float32), chosen)

    @cached_property
    def _lines(self) -> list["_Line"]:
        """One for the unions without an arc that runs over the end of the numbers, and one for each such arc."""
        return [*self._cut_lines()]

    def _cut_lines(self) -> Iterator["_Line"]:
        around, over = self.num_ablations, np.flatnonzero(self.end > self.num_ablations)
        if len(over) < len(self):
            inside = np.flatnonzero(self.end <= around)
            yield _Line.of(inside, self.first[inside], self.end[inside], starts=len(inside))
        yield from map(self._line_from, over.tolist())

    def _line_from(self, arc: int) -> "_Line":
        """The line that begins with an arc and ends where this begins again; its unions hold the arc."""
        around, these = self.num_ablations, np.arange(arc, arc + len(self))
        first, end = (np.concatenate([ends, ends + around])[these] for ends in (self.first, self.end))
        return _Line.of(these % len(self), first, np.minimum(end, first[0] + around), starts=1)


@dataclass(frozen=True)
class _Line:
    """Arcs in order, the last of which ends before the first begins again.

    Attributes:
        arcs: [n], which arcs of the circle.
        first, end: [n], what they hold.
        joined: [n], the last arc that begins inside an arc or right after it, itself if none does.
        starts: the first arc of a union is one of the first so many.
    """

    arcs: Ints
    first: Ints
    end: Ints
    joined: Ints
    starts: int

    @classmethod
    def of(cls, arcs: Ints, first: Ints, end: Ints, starts: int) -> Self:
        joined = np.searchsorted(first, end, side="right") - 1
        return cls(arcs, first, end, joined, starts)

    def heaviest(self, running: Sums, arcs: int) -> Sums:
        """[images]: the weight of the heaviest union of at most so many arcs."""
        weights = self._weights(running)[: self.starts]
        best: Sums = (weights + self._gains(running, arcs)[-1][: self.starts]).max(axis=0)
        return best

    def chosen(self, running: Sums, arcs: int) -> Ints:
        """[images, arcs]: those of the heaviest union, the last one several times if fewer are enough."""
        weights, gains, images = self._weights(running), self._gains(running, arcs), np.arange(running.shape[1])
        last = (weights + gains[-1])[: self.starts].argmax(axis=0)
        chosen = [last]
        places = np.arange(len(self.arcs))[:, None]
        for before, after in zip(gains[-2::-1], gains[:0:-1], strict=True):
            joined = self.joined[last]
            added = running[self.end[joined], images] - running[self.end[last], images] + before[joined, images]
            is_best = (places > joined) & (weights + before == after[last, images])
            last = np.where(added == after[last, images], joined, is_best.argmax(axis=0))
            chosen.append(last)
        chosen += [last] * (arcs - len(chosen))
        return self.arcs[np.stack(chosen, axis=1)]

    def _weights(self, running: Sums) -> Sums:
        """[n, images]: what each arc weighs."""
        weights: Sums = running[self.end] - running[self.first]
        return weights

    def _gains(self, running: Sums, arcs: int) -> list[Sums]:
        """[n, images] each: what 0, 1, ... more arcs behind an arc add to it, up to where others add nothing."""
        weights, reached = self._weights(running), running[self.end]
        added = reached[self.joined] - reached
        gains = [np.zeros_like(weights)]
        best_after = np.zeros((len(weights) + 1, weights.shape[1]), np.int32)  # of arcs from each on; no arc: 0
        for _ in range(arcs - 1):
            np.add(weights, gains[-1], out=best_after[:-1])
            np.maximum.accumulate(best_after[-2::-1], axis=0, out=best_after[-2::-1])
            more = np.maximum(added + gains[-1][self.joined], best_after[self.joined + 1])
            if (more == gains[-1]).all():
                break
            gains.append(more)
        return gains
