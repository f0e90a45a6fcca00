"""The largest patch that cannot change a prediction, out of a series of growing patches."""

from collections.abc import Sequence

import numpy as np

from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import Ballots, Ints, Rule


def largest_certified(rule: Rule, ballots: Ballots, ablations: RowsTimesColumns, threats: Sequence[Threat]) -> Ints:
    """[images]: how many of the threats are certified, up to the first that is not.

    A certificate for a rectangle holds for every smaller one, so a bisection finds the largest.

    Args:
        rule: exact_rule or margin_rule.
        ballots: the votes.
        ablations: the ablations that voted.
        threats: in ascending order, each containing the one before, such as `squares`.
    """
    largest = np.zeros(len(ballots), int)

    def bisect(images: Ints, low: int, high: int) -> None:
        """All `images` are certified for the first `low` threats and for none after the first `high`."""
        if low == high or not len(images):
            largest[images] = low
            return
        middle = (low + high + 1) // 2
        holds = rule(ballots.of_images(images), ablations, threats[middle - 1]).certified
        bisect(images[holds], middle, high)
        bisect(images[~holds], low, middle - 1)

    bisect(np.arange(len(ballots)), 0, len(threats))
    return largest


def squares(ablations: RowsTimesColumns) -> list[Threat]:
    """1 x 1, 2 x 2, ... up to the image's shorter side."""
    return [Threat(side, side) for side in range(1, min(ablations.height, ablations.width) + 1)]


def wide_strips(ablations: RowsTimesColumns) -> list[Threat]:
    """As wide as the image, 1, 2, ... pixels high: they give the largest height that is certified for every width."""
    return [Threat(height, ablations.width) for height in range(1, ablations.height + 1)]


def high_strips(ablations: RowsTimesColumns) -> list[Threat]:
    """As high as the image, 1, 2, ... pixels wide: they give the largest width that is certified for every height."""
    return [Threat(ablations.height, width) for width in range(1, ablations.width + 1)]
