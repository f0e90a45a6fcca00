"""The family of majority votes: the prediction is the class with the most votes.

The sides of the largest certified squares by the exact rule and by the margin rule are stored for each image beside its
votes, so that tables need no votes.

Not covered: the rules themselves (rules.py).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Certificate, Claim, RuleName
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.ablations.unions import Unions
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.family import Rule, RuleFamily
from smoothcert.workers.certificates.largest import largest_certified, squares
from smoothcert.workers.certificates.rules import (
    Answer,
    Ballots,
    Ints,
    exact_rule,
    exact_signs,
    margin_rule,
    slack_everywhere,
)
from smoothcert.workers.certificates.several import holds_against_several, top_k_rule_of_several


@dataclass(frozen=True, slots=True)
class Prediction:
    """Columns of an image: the result of the vote."""

    prediction: int
    """Class with the most votes; the lowest of equal ones."""
    count: int
    """Number of its votes."""
    runner_up: int
    """Class with the most votes but for the prediction; the lowest of equal ones, also if it has no votes."""
    runner_up_count: int
    """Number of its votes."""


@dataclass(frozen=True, slots=True)
class LargestPatches:
    """Columns of an image: the side of the largest certified square by each rule."""

    max_certified_patch: int
    """Side in pixels of the largest square that the exact rule certifies; 0: none."""
    max_margin_certified_patch: int
    """Side in pixels of the largest square that the margin rule certifies; 0: none."""


LARGEST_SQUARES = {RuleName.exact: "max_certified_patch", RuleName.margin: "max_margin_certified_patch"}
"""The column of LargestPatches that answers for squares, by rule."""


@dataclass(frozen=True)
class Certificates:
    """The same columns of many images, [images] each."""

    prediction: NDArray[np.int32]
    count: NDArray[np.int32]
    runner_up: NDArray[np.int32]
    runner_up_count: NDArray[np.int32]
    max_certified_patch: Ints
    max_margin_certified_patch: Ints


def certify(votes: NDArray[np.integer], ablations: RowsTimesColumns, *, classes: int) -> Certificates:
    """Count the votes and find the largest certified squares.

    Args:
        votes: [images, ablations], the class of each vote, in offset order.
        ablations: the ablations that voted.
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


class Majority(RuleFamily):
    """Columns, rows and blocks: the class with the most votes."""

    predicted = Prediction
    certified = LargestPatches
    rules = {Certificate.recovery: (RuleName.exact, RuleName.margin)}  # noqa: RUF012  of the class

    def ballots(
        self,
        cast: Cast,
        ablations: RowsTimesColumns,  # noqa: ARG002
        *,
        classes: int,
        tolerance: float = 0.0,
        known: Ballots | None = None,
    ) -> Ballots:
        fragile = None
        if tolerance:
            if cast.margins is None:
                raise ValueError("a tolerance needs margins")
            fragile = ~(cast.margins.astype(float) >= tolerance)  # a margin of NaN is fragile, too
        if known is not None:
            return replace(known, fragile=fragile)
        return Ballots.of(cast.votes, classes=classes, fragile=fragile, labels=cast.labels)

    def certify(self, cast: Cast, ablations: RowsTimesColumns, *, classes: int) -> Certificates:
        return certify(cast.votes, ablations, classes=classes)

    def rule(self, claim: Claim = Claim()) -> Rule:  # noqa: B008  frozen
        if claim == Claim():
            return exact_rule
        if claim == Claim(rule=RuleName.margin):
            return margin_rule
        if claim == Claim(top=claim.top, of=claim.of):
            return top_k_rule_of_several(claim.top, claim.of)
        raise RequestError(f"columns, rows and blocks do not decide {claim}")

    def decide(self, claim: Claim, counted: Ballots, ablations: RowsTimesColumns, threat: Threat) -> Answer:
        reach = ablations.reach(threat)
        if claim == Claim() and (not isinstance(reach, Unions) or reach.is_quick):
            return exact_signs(counted, ablations, threat)
        if reach.is_bound or claim.rule == RuleName.margin:
            return self.rule(claim)(counted, ablations, threat)
        holds = holds_against_several(counted, ablations, threat, top=claim.top, of=claim.of)
        return Answer.decided(holds, is_bound=False)

    def is_bound(self, ablations: RowsTimesColumns, threat: Threat) -> bool:
        return ablations.reach(threat).is_bound

    def slack_everywhere(self, counted: Ballots, ablations: RowsTimesColumns, height: int, width: int) -> Ints:
        return slack_everywhere(counted, ablations.everywhere(height, width))


MAJORITY = Majority()
