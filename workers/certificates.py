"""Votes to certificates: is there a patch that changes the prediction?

Notation of docs/certificates.md. n_c counts the votes for class c, p is the prediction (most votes, the
lowest class on a tie), T the ablations a patch touches. The attacker sets all votes in T and no other, so
a rival r can win iff the votes that p keeps outside T are fewer than r's outside plus |T|, or as many and
r is the lower class. With the lead L_r = n_p - n_r - [r < p] that is

    L_r < |T| + (votes for p in T) - (votes for r in T)              the exact rule, tight
    L_r < 2 D, D the largest |T|                                     the margin rule, weaker

and the prediction is certified iff neither holds for any rival, at any location. Classes without votes are
rivals too; the lowest of them is the strongest.

Covered: one patch of any h x w; the largest certified square under both rules.
Not covered: several patches, coarser strides, tolerances.
Source: Levine & Feizi 2020, arXiv:2002.10733, section 3, for the margin rule.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.geometry import Geometry, Touched

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_NOBODY = -1
_IMAGES_AT_ONCE = 256  # bounds the memory of the tables [images, contacts, contacts]


class Tally(NamedTuple):
    """The votes of each image counted, the classes ranked by count, then by index.

    Attributes:
        classes: [images, ranks], -1 where an image has fewer classes with votes. Rank 0 is the prediction.
            The lowest class without votes comes last, where there is one.
        counts: [images, ranks], 0 where classes is -1.
    """

    classes: Ints
    counts: Ints

    @property
    def prediction(self) -> Ints:
        return self.classes[:, 0]

    @property
    def leads(self) -> Ints:
        """[images, ranks]: n_p - n_r - [r < p]; for the prediction itself 0."""
        return self.counts[:, :1] - self.counts - (self.classes < self.classes[:, :1])


@dataclass(frozen=True)
class Certificates:
    """What is stored of each image, [images] each; the names are those of the Parquet columns."""

    prediction: Ints
    count: Ints
    runner_up: Ints
    runner_up_count: Ints
    max_certified_patch: Ints
    max_margin_certified_patch: Ints


def certify(votes: NDArray[np.integer], geometry: Geometry, *, classes: int) -> Certificates:
    """Count the votes and find the largest certified squares.

    Args:
        votes: [images, ablations], the class of each vote, in offset order.
        geometry: of the ablations.
        classes: K, the number of classes, at least 2.
    Raises:
        ValueError: votes do not fit the geometry or the number of classes.
    """
    tally = count_votes(votes, classes=classes)
    return Certificates(
        tally.classes[:, 0],
        tally.counts[:, 0],
        tally.classes[:, 1],
        tally.counts[:, 1],
        largest_certified_square(votes, tally, geometry),
        largest_margin_certified_square(tally, geometry),
    )


def count_votes(votes: NDArray[np.integer], *, classes: int) -> Tally:
    """Rank the classes of each image by their votes.

    Args:
        votes: [images, ablations], classes from 0 to `classes` - 1.
        classes: K, at least 2.
    Raises:
        ValueError: a vote is for no class.
    """
    if votes.size and not (votes.min() >= 0 and votes.max() < classes):
        raise ValueError(f"votes from {votes.min()} to {votes.max()} do not fit {classes} classes")
    images = len(votes)
    pairs, counts = np.unique(np.arange(images)[:, None] * classes + votes, return_counts=True)
    image, voted = np.divmod(pairs, classes)
    order = np.lexsort((voted, -counts, image))
    image, voted, counts = image[order], voted[order], counts[order]
    distinct = np.bincount(image, minlength=images)
    rank = np.arange(len(image)) - (np.cumsum(distinct) - distinct)[image]

    table = Tally(
        np.full((images, distinct.max(initial=1) + 1), _NOBODY), np.zeros((images, distinct.max(initial=1) + 1), int)
    )
    table.classes[image, rank] = voted
    table.counts[image, rank] = counts
    some_without = distinct < classes
    table.classes[some_without, distinct[some_without]] = _lowest_without_votes(table.classes)[some_without]
    return table


def _lowest_without_votes(voted: Ints) -> Ints:
    """[images]: the lowest class that is not in a row of `voted`."""
    ascending = np.sort(np.where(voted == _NOBODY, np.iinfo(np.int64).max, voted), axis=1)
    # The classes with votes are distinct, so up to the first gap each equals its position.
    return (ascending == np.arange(ascending.shape[1])).cumprod(axis=1).sum(axis=1)


def is_certified(
    votes: NDArray[np.integer], tally: Tally, geometry: Geometry, patch_height: int, patch_width: int
) -> Bools:
    """The exact rule for one patch of h x w pixels: [images].

    Args:
        votes: [images, ablations], in offset order.
        tally: of the same votes.
        geometry: of the ablations.
        patch_height, patch_width: in pixels.
    Raises:
        RequestError: the patch is larger than the image.
        ValueError: votes do not fit the geometry.
    """
    if votes.shape[1] != geometry.num_ablations:
        raise ValueError(f"{votes.shape[1]} votes an image do not fit {geometry.num_ablations} ablations")
    touched = geometry.touched(patch_height, patch_width)
    certified = np.ones(len(votes), bool)
    for start in range(0, len(votes), _IMAGES_AT_ONCE):
        part = np.s_[start : start + _IMAGES_AT_ONCE]
        certified[part] = _holds_everywhere(votes[part], Tally(tally.classes[part], tally.counts[part]), touched)
    return certified


def _holds_everywhere(votes: NDArray[np.integer], tally: Tally, touched: Touched) -> Bools:
    # float32 is exact for counts below 2**24, and its matrix products are fast.
    vertical, horizontal = touched.vertical.astype(np.float32), touched.horizontal.astype(np.float32)
    grid = votes.reshape(len(votes), vertical.shape[1], horizontal.shape[1])

    def votes_in_touched(images: Ints, classes: Ints) -> NDArray[np.float32]:
        """[images, vertical contacts, horizontal contacts]: votes for one class an image."""
        return vertical @ (grid[images] == classes[:, None, None]).astype(np.float32) @ horizontal.T

    everyone = np.arange(len(votes))
    size = np.outer(vertical.sum(1), horizontal.sum(1))
    reach = size + votes_in_touched(everyone, tally.prediction)
    reach_max = reach.max(axis=(1, 2), initial=0)

    certified = np.ones(len(votes), bool)
    for rank in range(1, tally.classes.shape[1]):
        rival, lead = tally.classes[:, rank], tally.leads[:, rank]
        # A lead of the reach is out of danger, whatever the rival's own touched votes are.
        images = np.flatnonzero(certified & (rival != _NOBODY) & (lead < reach_max))
        if len(images):
            needed = reach[images] - votes_in_touched(images, rival[images])
            certified[images] = lead[images] >= needed.max(axis=(1, 2))
    return certified


def largest_certified_square(votes: NDArray[np.integer], tally: Tally, geometry: Geometry) -> Ints:
    """[images]: the largest m whose m x m square is certified by the exact rule; 0 if none.

    A certificate implies that of every smaller rectangle, so a bisection finds it.
    """
    largest = np.zeros(len(votes), int)

    def bisect(images: Ints, low: int, high: int) -> None:
        """All `images` hold at `low` and fail above `high`."""
        if low == high or not len(images):
            largest[images] = low
            return
        middle = (low + high + 1) // 2
        these = Tally(tally.classes[images], tally.counts[images])
        holds = is_certified(votes[images], these, geometry, middle, middle)
        bisect(images[holds], middle, high)
        bisect(images[~holds], low, middle - 1)

    bisect(np.arange(len(votes)), 0, min(geometry.height, geometry.width))
    return largest


def largest_margin_certified_square(tally: Tally, geometry: Geometry) -> Ints:
    """[images]: the largest m whose m x m square is certified by the margin rule; 0 if none."""
    rivals = (tally.classes != _NOBODY)[:, 1:]
    smallest_lead = tally.leads[:, 1:].min(axis=1, initial=np.iinfo(np.int64).max, where=rivals)
    return np.searchsorted(2 * geometry.max_touched_squares, smallest_lead, side="right")
