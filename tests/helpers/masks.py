"""Masks counted pixel by pixel, double masking as its paper prints it, and an attacker who tries everything."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from itertools import combinations, combinations_with_replacement, product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.workers.ablations.masks import Covers, MaskSet
from smoothcert.workers.ablations.threats import Threat

Pixels = frozenset[tuple[int, int]]
Votes = NDArray[np.int64]
Bools = NDArray[np.bool_]


def rectangle(top: int, left: int, height: int, width: int) -> Pixels:
    return frozenset(product(range(top, top + height), range(left, left + width)))


class HandMasks:
    """Masks of an image, with the members that rules use. Every set is found by comparing sets of pixels."""

    def __init__(self, height: int, width: int, base: Sequence[Pixels], own: Threat) -> None:
        self.height, self.width, self.base, self.own = height, width, base, own
        self.subsets = [
            frozenset(members)
            for size in range(1, 2 * own.patches + 1)
            for members in combinations(range(len(base)), size)
        ]
        self.num_ablations = len(self.subsets)
        self.num_masks = sum(len(members) <= own.patches for members in self.subsets)
        masks = self.subsets[: self.num_masks]
        self.unions = np.array([[self.subsets.index(one | other) for other in masks] for one in masks])

    @cached_property
    def hidden(self) -> list[Pixels]:
        """What each vote does not see."""
        return [frozenset().union(*(self.base[one] for one in members)) for members in self.subsets]

    def placed(self, threat: Threat) -> dict[tuple[tuple[int, int], ...], Pixels]:
        """The pixels of the patches at all their places."""
        tops, lefts = range(self.height - threat.height + 1), range(self.width - threat.width + 1)
        one = {(top, left): rectangle(top, left, threat.height, threat.width) for top, left in product(tops, lefts)}
        return {
            several: frozenset().union(*(one[place] for place in several))
            for several in combinations_with_replacement(one, threat.patches)
        }

    def touched(self, patches: Pixels) -> list[int]:
        """The votes that see a pixel of the patches."""
        return [vote for vote, hidden in enumerate(self.hidden) if not patches <= hidden]

    def covers(self, threat: Threat) -> Covers:
        found = {
            places: frozenset(range(self.num_masks)) - frozenset(self.touched(patches))
            for places, patches in self.placed(threat).items()
        }
        assert all(found.values()), "a place that no mask hides"
        least = {one: places for places, one in found.items() if not any(other < one for other in found.values())}
        sets = [[mask in one for mask in range(self.num_masks)] for one in least]
        return Covers(np.array(sets), np.array(list(least.values())))

    def own_covers(self) -> Covers:
        return self.covers(self.own)

    @classmethod
    def like(cls, masks: MaskSet, own: Threat) -> Self:
        """Of the pixels that the single rectangles of a job hide."""
        count = len(masks.rows)
        hidden = [frozenset(map(tuple, np.argwhere(~shown).tolist())) for shown in masks.visible(np.arange(count))]
        return cls(masks.height, masks.width, hidden, own)


def on_a_line(width: int, size: int, offsets: Iterable[int], patch: int, patches: int = 1) -> HandMasks:
    """Masks of `size` pixels at these offsets, on an image of one row."""
    return HandMasks(1, width, [rectangle(0, offset, 1, size) for offset in offsets], Threat(1, patch, patches))


def on_a_grid(height: int, width: int, size: int, offsets: Sequence[int], patch: int) -> HandMasks:
    """Square masks at the products of these offsets."""
    base = [rectangle(top, left, size, size) for top, left in product(offsets, repeat=2)]
    return HandMasks(height, width, base, Threat(patch, patch))


def every_map(masks: HandMasks, classes: int) -> Votes:
    """[maps, votes]: all assignments of classes to votes."""
    return np.indices((classes,) * masks.num_ablations, np.int64).reshape(masks.num_ablations, -1).T.copy()


def double_masking(
    votes: Sequence[int], unions: Sequence[Sequence[int]], tie: Callable[[Iterable[int]], int] = min
) -> int:
    """Algorithm 1 of arXiv:2108.09135. The paper leaves ties open: `tie` chooses of the classes with most votes."""

    def predicted(mask: int, other: int) -> int:
        return votes[unions[mask][other]]

    masks = range(len(unions))
    first_round = [predicted(mask, mask) for mask in masks]
    counts = Counter(first_round)
    majority = tie(label for label, count in counts.items() if count == max(counts.values()))
    disagreers = [(mask, label) for mask, label in enumerate(first_round) if label != majority]
    if not disagreers:
        return majority
    for mask, label in disagreers:
        second_round = [predicted(mask, other) for other in masks]
        if all(other == label for other in second_round):
            return label
    return majority


def two_mask_correct(votes: Sequence[int], unions: Sequence[Sequence[int]], label: int) -> bool:
    """Theorem 1 of arXiv:2108.09135: the condition of the published certificate."""
    masks = range(len(unions))
    return all(votes[unions[mask][other]] == label for mask in masks for other in masks)


def all_predictions(masks: HandMasks, classes: int, tie: Callable[[Iterable[int]], int] = min) -> Votes:
    """[maps]: what the published algorithm answers for `every_map`."""
    return _all_predictions(tuple(map(tuple, masks.unions.tolist())), classes, tie)


@cache  # the answers do not depend on where the masks are
def _all_predictions(unions: tuple[tuple[int, ...], ...], classes: int, tie: Callable[[Iterable[int]], int]) -> Votes:
    maps = product(range(classes), repeat=1 + max(map(max, unions)))  # in the order of every_map
    return np.array([double_masking(votes, unions, tie) for votes in maps])


def falls(outcome: NDArray[np.integer], classes: int, votes: int, touched: Sequence[int]) -> Bools:
    """[maps]: whether some assignment of the touched votes gives another outcome.

    Args:
        outcome: [maps], of `every_map`.
        classes, votes: of each map.
        touched: positions of votes.
    """
    table, axes = outcome.reshape((classes,) * votes), tuple(touched)
    lowest, highest = table.min(axis=axes, keepdims=True), table.max(axis=axes, keepdims=True)
    return ((table != lowest) | (table != highest)).ravel()
