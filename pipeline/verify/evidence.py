"""What a replay proves: the chance that it would have found forged images.

A replay of N of M images, chosen at random, misses k forged ones with the chance that a hypergeometric draw holds none
of them. An image counts as forged if its new votes or margins contradict its row. This assumes that who made the run
could not foresee the choice.

Not covered: forged votes that are numerically fragile (replay.py says how many votes are); forgeries of which verify
needs no model (check.py).
"""

import bisect
import math
from dataclasses import dataclass

from scipy.stats import hypergeom

SHARE = 0.01
LEVEL = 0.95


@dataclass(frozen=True)
class Evidence:
    """How many images a replay chose, and what follows.

    Attributes:
        images: all that have votes, in files that could be read.
        chosen: how many of them were chosen at random.
        replayed: how many of these were voted on again.
        seed: of the choice.
        one_percent: 1 % of the images, rounded up.
        found_one_percent: the chance to find at least one, if that many were forged.
        fewest_found_95: the fewest forged images of which at least one is found with a chance of 95 %.

    The last three are None if no image has votes, or if one of the chosen could not be voted on again.
    """

    images: int
    chosen: int
    replayed: int
    seed: int
    one_percent: int | None
    found_one_percent: float | None
    fewest_found_95: int | None


def evidence_of(*, images: int, chosen: int, replayed: int, seed: int) -> Evidence:
    """What a replay proves; the arguments are those of Evidence."""
    if not replayed or replayed < chosen:
        return Evidence(images, chosen, replayed, seed, None, None, None)
    forged = math.ceil(images * SHARE)
    found = chance_to_find(forged, replayed, images)
    return Evidence(images, chosen, replayed, seed, forged, found, fewest_found(replayed, images))


def chance_to_find(forged: int, replayed: int, images: int) -> float:
    """The chance that at least one of the forged images is among the replayed.

    Args:
        forged: how many of the images are forged.
        replayed: how many are chosen, at random and without repetition.
        images: how many there are.
    """
    return 1 - float(hypergeom.pmf(0, images, forged, replayed))


def fewest_found(replayed: int, images: int, level: float = LEVEL) -> int:
    """The smallest number of forged images of which at least one is found with a chance of `level`.

    Args:
        replayed: how many images are chosen, at least 1.
        images: how many there are.
        level: the chance, less than 1.
    """
    return bisect.bisect_left(range(images + 1), level, key=lambda forged: chance_to_find(forged, replayed, images))
