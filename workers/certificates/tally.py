"""Counts the votes of each image and ranks the classes: prediction, runner-up and all other rivals.

Ties are ranked by class index, the lowest first. Memory grows with the votes, not with the number of classes:
no table of images x classes is made.

Not covered: what an attacker can do to the counts (rules.py).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

NOBODY = -1
"""In a table of classes: no class here."""


class Tally(NamedTuple):
    """The counts of each image, with the classes ranked by count, then by index.

    Attributes:
        classes: [images, ranks], -1 beyond the classes of an image. Rank 0 is the prediction.
            The lowest class without votes comes last, if there is one.
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
    images, ablations = votes.shape
    ordered = np.sort(votes, axis=1)
    first = np.ones(votes.shape, bool)  # of each run of equal classes
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    runs = np.flatnonzero(first)
    counts = np.diff(runs, append=votes.size)

    # Each class becomes one number, so that a plain sort ranks by count, then by class; unused places come last.
    keys: NDArray[np.int64] = np.full(votes.shape, np.iinfo(np.int64).max)
    keys.flat[runs] = (ablations - counts) * classes + ordered.flat[runs]
    distinct = first.sum(axis=1)
    keys = np.sort(keys, axis=1)[:, : int(distinct.max(initial=1))]
    ranked = np.arange(keys.shape[1]) < distinct[:, None]
    shape = images, keys.shape[1] + 1
    table = Tally(np.full(shape, NOBODY, np.int32), np.zeros(shape, np.int32))
    table.classes[:, :-1][ranked] = keys[ranked] % classes
    table.counts[:, :-1][ranked] = ablations - keys[ranked] // classes

    # Ascending classes with votes equal their place among these up to the first class without votes.
    lowest_without = (first & (ordered == first.cumsum(axis=1, dtype=np.int32) - 1)).sum(axis=1)
    some_without = distinct < classes
    table.classes[some_without, distinct[some_without]] = lowest_without[some_without]
    return table
