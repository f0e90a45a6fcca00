"""Majority votes: what is stored of each image beside its votes.

The prediction is the class with the most votes. Both largest squares are stored, by the exact rule and by the margin
rule, so that tables need no votes.

Not covered: the rules themselves (rules.py).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.workers.ablations.kinds import Ablations
from smoothcert.workers.certificates.largest import largest_certified, squares
from smoothcert.workers.certificates.rules import Ballots, Ints, exact_rule, margin_rule


@dataclass(frozen=True)
class Certificates:
    """What is stored of each image, [images] each; the names are those of the Parquet columns."""

    prediction: NDArray[np.int32]
    count: NDArray[np.int32]
    runner_up: NDArray[np.int32]
    runner_up_count: NDArray[np.int32]
    max_certified_patch: Ints
    max_margin_certified_patch: Ints


def certify(votes: NDArray[np.integer], ablations: Ablations, *, classes: int) -> Certificates:
    """Count the votes and find the largest certified squares.

    Args:
        votes: [images, ablations], the class of each vote, in offset order.
        ablations: that voted.
        classes: K, the number of classes, at least 2.
    Raises:
        ValueError: there are not as many votes as ablations, or one is for no class.
    """
    ballots = Ballots.of(votes, classes=classes)
    return Certificates(
        ballots.tally.classes[:, 0],
        ballots.tally.counts[:, 0],
        ballots.tally.classes[:, 1],
        ballots.tally.counts[:, 1],
        largest_certified(exact_rule, ballots, ablations, squares(ablations)),
        largest_certified(margin_rule, ballots, ablations, squares(ablations)),
    )
