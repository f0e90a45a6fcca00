"""The rules of majority votes: are there patches that change the prediction?

Notation of docs/certificates.md. n_c counts the votes for class c, p is the prediction (most votes, the
lowest class on a tie), T the ablations that the patches touch, F the fragile votes, which count as touched
wherever the patches are. The attacker sets all votes in T and F, and no others. A vote has the weight
w_r(a) = 1 + [v_a = p] - [v_a = r], and p has the lead L_r = n_p - n_r - [r < p]. Rival r can win if

    L_r < (sum of w_r over T and F)              the exact rule, tight: otherwise r cannot win
    L_r < 2 D, D the largest |T and F|           the margin rule, weaker

A rule certifies the prediction iff its inequality holds for no rival at any place. The slack is the smallest
difference of the two sides: certified iff it is 0 or more. Classes without votes are rivals too; the lowest
of them is the strongest.

Not covered: which sets patches touch (ablations/); counting (tally.py); the largest certified patch (largest.py).
Source: Levine & Feizi 2020, arXiv:2002.10733, section 3, for the margin rule.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Heaviest, Reach, Threat, Weights, parts
from smoothcert.workers.certificates.tally import NOBODY, Tally, count_votes

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Answer(NamedTuple):
    """Whether patches of one kind can change predictions.

    Attributes:
        slack: [images], by how many votes of lead the certificate holds (0 or more) or fails (below 0).
        places: [images, patches, 2], top and left pixel where the slack is smallest; patches that would add
            nothing are left out; -1 if the answer belongs to no place.
        is_bound: whether the true slack may be larger. Certificates are proven, but some may be missing.
        alarms: [images], for detection: whether an alarm sounds without any patch; None for other certificates.
    """

    slack: Ints
    places: Ints
    is_bound: bool
    alarms: Bools | None = None

    @classmethod
    def decided(cls, certified: Bools, *, is_bound: bool) -> Self:
        """An answer that knows no slack and no place: the slack is 0 where the certificate holds, else -1."""
        return cls(certified.astype(np.int64) - 1, np.full((len(certified), 1, 2), -1), is_bound)

    @property
    def certified(self) -> Bools:
        return self.slack >= 0


@dataclass(frozen=True)
class Ballots:
    """The votes of images, counted.

    Attributes:
        votes: [images, ablations], in offset order.
        tally: of the votes.
        classes: K, the number of classes.
        fragile: [images, ablations], votes that count as touched everywhere; None if there are none.
        labels: [images], -1 for images without a usable label; None if there are none.
    """

    votes: NDArray[np.integer]
    tally: Tally
    classes: int
    fragile: Bools | None = None
    labels: NDArray[np.integer] | None = None

    @classmethod
    def of(
        cls,
        votes: NDArray[np.integer],
        *,
        classes: int,
        fragile: Bools | None = None,
        labels: NDArray[np.integer] | None = None,
    ) -> Self:
        """Count votes.

        Args:
            votes: [images, ablations], classes from 0 to `classes` - 1, in offset order.
            classes: K, at least 2.
            fragile, labels: as the attributes.
        Raises:
            ValueError: a vote is for no class.
        """
        return cls(votes, count_votes(votes, classes=classes), classes, fragile, labels)

    @property
    def prediction(self) -> NDArray[np.int32]:
        """[images]: the class with the most votes."""
        return self.tally.prediction

    def __len__(self) -> int:
        return len(self.votes)

    def of_images(self, images: Ints | slice) -> Self:
        """The ballots of some images."""
        tally = Tally(self.tally.classes[images], self.tally.counts[images])
        fragile = None if self.fragile is None else self.fragile[images]
        labels = None if self.labels is None else self.labels[images]
        return type(self)(self.votes[images], tally, self.classes, fragile, labels)

    def weights(self) -> Weights:
        """[images, ablations]: the largest that w_r can be, 1 + [v = p]."""
        return (self.votes == self.tally.prediction[:, None]) + np.float32(1)


Rule = Callable[[Ballots, RowsTimesColumns, Threat], Answer]


def exact_rule(ballots: Ballots, ablations: RowsTimesColumns, threat: Threat) -> Answer:
    """Whether any content of the patches, at any place, changes the prediction. Tight, unless the answer is a bound.

    Args:
        ballots: the votes.
        ablations: the ablations that voted.
        threat: the patches.
    Raises:
        RequestError: the patch is larger than the image.
        ValueError: there are not as many votes as ablations.
    """
    return _answer(_exact_slack, ballots, ablations, threat)


def exact_signs(ballots: Ballots, ablations: RowsTimesColumns, threat: Threat) -> Answer:
    """The answer of the exact rule, sooner, but only the sign of the slack is right, and no place."""
    return _answer(partial(_exact_slack, signs=True), ballots, ablations, threat)


def margin_rule(ballots: Ballots, ablations: RowsTimesColumns, threat: Threat) -> Answer:
    """The published rule, made sound: it certifies nothing that the exact rule does not. Takes the same arguments."""
    return _answer(_margin_slack, ballots, ablations, threat)


def slack_everywhere(ballots: Ballots, reach: Reach) -> Ints:
    """[images, sets]: the slack of the exact rule at each set; the smallest is the slack of the image.

    Args:
        ballots: the votes.
        reach: of one patch at all its places, such as `Touched.everywhere`.
    """
    slack = np.full((len(ballots), reach.num_sets), np.iinfo(int).min)
    for part in parts(len(ballots), reach.num_sets + reach.num_ablations):
        slack[part] = _slacks(ballots.of_images(part), reach)
    return slack


def slack_if_touched(ballots: Ballots, touched: Bools) -> tuple[Ints, Ints]:
    """[images] each: the slack of the exact rule if the attacker sets these votes, and the most dangerous rival.

    Args:
        ballots: the votes.
        touched: [ablations].
    """
    leads, classes = ballots.tally.leads, ballots.tally.classes
    weights = 1 + (ballots.votes == classes[:, :1]).astype(int)
    most = (weights * touched).sum(axis=1)
    slack = np.full(len(ballots), np.iinfo(np.int64).max)
    rival = np.full(len(ballots), -1)
    for rank in range(1, leads.shape[1]):
        against = classes[:, rank]
        own = ((ballots.votes == against[:, None]) * touched).sum(axis=1)
        left = leads[:, rank] - (most - own)
        better = (against >= 0) & (left < slack)
        slack[better], rival[better] = left[better], against[better]
    return slack, rival


def _answer(
    slack_of: Callable[[Ballots, Reach], tuple[Ints, Ints]],
    ballots: Ballots,
    ablations: RowsTimesColumns,
    threat: Threat,
) -> Answer:
    if ballots.votes.shape[1] != ablations.num_ablations:
        raise ValueError(f"{ballots.votes.shape[1]} votes an image do not fit {ablations.num_ablations} ablations")
    reach = ablations.reach(threat)
    slack, sets = np.full((2, len(ballots)), np.iinfo(int).min)  # what is not answered is not certified
    for part in parts(len(ballots), reach.num_ablations):
        slack[part], sets[part] = slack_of(ballots.of_images(part), reach)
    return Answer(slack, reach.places(sets), reach.is_bound)


def _exact_slack(ballots: Ballots, reach: Reach, *, signs: bool = False) -> tuple[Ints, Ints]:
    """[images] each: the smallest slack, and the set that gives it. For signs, any slack below 0 will do, and 0 for all
    others.
    """
    leads, weights = ballots.tally.leads, ballots.weights()
    most = _heaviest(weights, ballots.fragile, reach).sums
    slack = np.full(len(ballots), 0 if signs else np.inf, np.float32)
    sets = np.zeros(len(ballots), np.int64)
    for rank in range(1, leads.shape[1]):
        settled = np.where(slack < 0, -np.inf, slack) if signs else slack
        images = _images_that_matter(ballots, rank, most, settled)
        if not len(images):  # leads rise with the rank: later rivals are no more dangerous
            break
        found = _heaviest(*_gained(ballots, weights, rank, images), reach)
        left = leads[images, rank] - found.sums
        smaller = left < slack[images]
        slack[images[smaller]], sets[images[smaller]] = left[smaller], found.sets[smaller]
    return slack.astype(np.int64), sets


def _margin_slack(ballots: Ballots, reach: Reach) -> tuple[Ints, Ints]:
    """[images] each: the smallest lead beyond 2 D, and the largest set."""
    lead = ballots.tally.leads[:, 1]  # leads rise with the rank
    largest = _heaviest(np.ones(ballots.votes.shape, np.float32), ballots.fragile, reach)
    return lead - 2 * largest.sums.astype(int), largest.sets


def _slacks(ballots: Ballots, reach: Reach) -> Weights:
    """[images, sets]: the slack if a set is touched."""
    leads, weights = ballots.tally.leads, ballots.weights()
    most = _sums(weights, ballots.fragile, reach).max(axis=1)
    slacks = np.full((len(ballots), reach.num_sets), np.inf, np.float32)
    for rank in range(1, leads.shape[1]):
        images = _images_that_matter(ballots, rank, most, slacks.max(axis=1))
        if not len(images):
            break
        sums = _sums(*_gained(ballots, weights, rank, images), reach)
        slacks[images] = np.minimum(slacks[images], leads[images, rank, None] - sums)
    return slacks


def _images_that_matter(ballots: Ballots, rank: int, most: Weights, settled: Weights) -> Ints:
    """Those whose rival of this rank may have less slack than is settled. It has its lead less `most`, or more."""
    return np.flatnonzero((ballots.tally.classes[:, rank] != NOBODY) & (ballots.tally.leads[:, rank] - most < settled))


def _gained(ballots: Ballots, weights: Weights, rank: int, images: Ints) -> tuple[Weights, Bools | None]:
    """[images, ablations]: the weights w_r for the rival of this rank, and the fragile votes."""
    own = ballots.votes[images] == ballots.tally.classes[images, rank, None]
    return weights[images] - own, None if ballots.fragile is None else ballots.fragile[images]


def _heaviest(weights: Weights, fragile: Bools | None, reach: Reach) -> Heaviest:
    """The heaviest of the sets of touched and fragile votes together: exact, as sums of small integers."""
    if fragile is None:
        return reach.heaviest(weights)
    found = reach.heaviest(np.where(fragile, 0, weights))
    return found._replace(sums=found.sums + _everywhere(weights, fragile))


def _sums(weights: Weights, fragile: Bools | None, reach: Reach) -> Weights:
    """[images, sets]: the weights of the touched and the fragile votes together: exact, as sums of small integers."""
    if fragile is None:
        return reach.sums(weights)
    return reach.sums(np.where(fragile, 0, weights)) + _everywhere(weights, fragile)[:, None]


def _everywhere(weights: Weights, fragile: Bools) -> Weights:
    """[images]: the weights of the fragile votes."""
    return np.where(fragile, weights, 0).sum(axis=1)
