"""Intervals of shares, tests of shares that belong to the same images, and means with their standard errors.

Not covered: which shares are asked for (compare/).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

LEVEL = 0.95


def share_interval(count: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of Clopper and Pearson for a share; (0, 1) if there is nothing to count.

    Source: Clopper & Pearson 1934, Biometrika 26.

    Args:
        count: how many of the images have the property.
        total: how many images there are.
        level: of confidence.
    """
    if not total:
        return 0.0, 1.0
    interval = binomtest(count, total).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


class Mean(NamedTuple):
    """A mean over images.

    Attributes:
        value: the mean.
        standard_error: of the mean; None for a single image.
    """

    value: float
    standard_error: float | None


def mean_of(values: NDArray[np.floating]) -> Mean:
    """The mean of at least one number."""
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return Mean(float(values.mean()), error)


def mcnemar(lost: int, gained: int) -> float:
    """The p-value of McNemar's exact test, two-sided: are a loss and a gain equally likely?

    Source: McNemar 1947, Psychometrika 12.

    Args:
        lost: images that had the property in the first run alone.
        gained: images that have it in the second run alone.
    """
    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def difference_interval(lost: int, gained: int, pairs: int, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of Tango for the difference of two shares of the same images, second minus first.

    It holds the differences that the score test does not reject. Source: Tango 1998, Statistics in Medicine 17.

    Args:
        lost, gained: as for `mcnemar`.
        pairs: how many images there are, at least 1.
        level: of confidence.
    """
    limit = float(norm.ppf((1 + level) / 2))
    return (
        -1.0 if lost == pairs else _where_score_is(limit, lost, gained, pairs),
        1.0 if gained == pairs else _where_score_is(-limit, lost, gained, pairs),
    )


def _where_score_is(value: float, lost: int, gained: int, pairs: int) -> float:
    """The difference of this score; the score falls from infinity to minus infinity between -1 and 1."""
    ends = -1 + 1e-12, 1 - 1e-12
    return float(brentq(lambda difference: _score(lost, gained, pairs, difference) - value, *ends, xtol=1e-12))


def _score(lost: int, gained: int, pairs: int, difference: float) -> float:
    """Tango's statistic: how far the observed difference is from a supposed one, in standard errors."""
    slope = (2 * pairs + lost - gained) * difference - lost - gained
    root = math.sqrt(max(0.0, slope**2 + 8 * pairs * lost * difference * (1 - difference)))
    most_likely_loss = (root - slope) / (4 * pairs)  # the share of losses, given the difference
    variance = pairs * (2 * most_likely_loss + difference * (1 - difference))
    return (gained - lost - pairs * difference) / math.sqrt(max(variance, 1e-300))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values that may be compared with one level although there are many of them.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted
