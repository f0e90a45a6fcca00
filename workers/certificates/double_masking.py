"""The family of masks: double masking, which recovers the prediction, and the detection of attacks by single masks.

Notation of docs/certificates.md. v_i is the vote with mask i hidden, v_ij the one with masks i and j hidden. The row of
mask i holds all v_ij, and v_i as v_ii. A mask is uniform if its whole row shows v_i. M(l) are the masks that hide the
whole patch at place l: an attacker there changes no vote in a row of M(l).

    mask        1 2 3 4
    1           a a b a        masks 2 and 4 are uniform: the prediction is a
    2           a a a a
    3           b a b a        a patch that mask 2 or 4 hides cannot change it;
    4           a a a a        one that only mask 1 or 3 hides may

The prediction is the class of the uniform masks. They all show the same one, since v_ij = v_ji. Without a uniform mask
it is the class with the most v_i, the lowest on a tie.

    recovery    exact       at every place l some mask of M(l) is uniform
                published   all votes show one class
    detection   exact       at no place do all masks of M(l) show one class that is not the whole image's, with
                            margins that raise no alarm
                published   every mask shows the class of the whole image, or raises an alarm by its margin

Not covered: which masks there are, and what they hide (ablations/masks.py).
Source: Xiang, Mahloujifar, Mittal 2022, arXiv:2108.09135, algorithm 1 and theorem 1, for the prediction and the
published rule; Zhou et al. 2025, arXiv:2512.06123, for alarms by margins.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Certificate, Claim, RuleName, Subject
from smoothcert.workers.ablations.masks import Covers, MaskSet
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.family import Rule, RuleFamily
from smoothcert.workers.certificates.rules import Answer, Bools, Ints
from smoothcert.workers.certificates.tally import NOBODY, Tally, count_votes

_NUMBERS_AT_ONCE = 1 << 22  # in a table [images, votes] or [images, sets]: bounds the memory


@dataclass(frozen=True, slots=True)
class Prediction:
    """Columns of an image: the result of the votes."""

    prediction: int
    """Class that double masking predicts."""
    count: int | None
    """Null: of majority votes only."""
    runner_up: int | None
    """Null, likewise."""
    runner_up_count: int | None
    """Null, likewise."""


@dataclass(frozen=True, slots=True)
class OwnThreat:
    """Columns of an image: its certificates against the threat that the masks were made for."""

    max_certified_patch: int | None
    """Null: of majority votes only."""
    max_margin_certified_patch: int | None
    """Null, likewise."""
    recovery_certified: bool
    """Whether no patch changes the prediction, by the exact rule."""
    recovery_published: bool
    """Whether all votes show one class: the published rule."""
    detection_certified: bool | None
    """Whether every mask shows the class of the whole image; null where that was not computed."""


@dataclass(frozen=True)
class Certificates:
    """The same columns of many images, [images] each; None for columns that are null."""

    prediction: NDArray[np.int32]
    count: None
    runner_up: None
    runner_up_count: None
    max_certified_patch: None
    max_margin_certified_patch: None
    recovery_certified: Bools
    recovery_published: Bools
    detection_certified: Bools | None


@dataclass(frozen=True)
class MaskBallots:
    """The votes of images, with what every rule needs of them.

    Attributes:
        votes: [images, masks], of single masks.
        tally: of these.
        margins: [images, masks], of these; None if unknown.
        fragile: [images, masks], which of these have a margin below the tolerance.
        uniform: [images, masks], whether all votes in the row of a mask show one class and none of them is fragile.
        prediction: [images].
        differing: [images], how many of all votes are fragile or do not show the prediction.
        clean: [images], class of the whole image, -1 where it is unknown; None if the job did not ask for it.
        clean_holds: [images], whether it is known and not fragile.
        tolerance: votes with smaller margins are fragile.
    """

    votes: NDArray[np.integer]
    tally: Tally
    margins: NDArray[np.float64] | None
    fragile: Bools
    uniform: Bools
    prediction: NDArray[np.int32]
    differing: Ints
    clean: NDArray[np.integer] | None
    clean_holds: Bools
    tolerance: float

    @classmethod
    def of(cls, cast: Cast, masks: MaskSet, *, classes: int, tolerance: float = 0.0) -> Self:
        """Count votes.

        Args:
            cast: the votes; -1 for pairs of masks that were left out.
            masks: those that voted.
            classes: K, at least 2.
            tolerance: as the attribute.
        Raises:
            ValueError: there are not as many votes as ablations, or one is for no class; margins are missing.
        """
        votes = cast.votes
        if tolerance and (cast.margins is None or (cast.clean is not None and cast.clean_margins is None)):
            raise ValueError("a tolerance needs margins")
        if votes.shape[1] != masks.num_ablations:
            raise ValueError(f"{votes.shape[1]} votes an image do not fit {masks.num_ablations} ablations")
        if votes.size and not (votes.min() >= NOBODY and votes.max() < classes):
            raise ValueError(f"votes from {votes.min()} to {votes.max()} do not fit {classes} classes")
        singles = votes[:, : masks.num_masks]
        tally = count_votes(singles, classes=classes)
        uniform = np.zeros(singles.shape, bool)
        prediction = tally.prediction.copy()
        differing = np.zeros(len(votes), int)
        for part in _parts(len(votes), masks.num_ablations):
            some = votes[part]
            uniform[part] = _uniform(some, masks)
            first = some[np.arange(len(some)), uniform[part].argmax(axis=1)]
            prediction[part] = np.where(uniform[part].any(axis=1), first, prediction[part])
            if tolerance and cast.margins is not None:
                some = np.where(_fragile(cast.margins[part], tolerance), NOBODY, some.astype(np.int64))
                uniform[part] = _uniform(some, masks)
            differing[part] = (some != prediction[part, None]).sum(axis=1)
        clean_holds = np.zeros(len(votes), bool) if cast.clean is None else cast.clean >= 0
        if tolerance and cast.clean_margins is not None:
            clean_holds &= ~_fragile(cast.clean_margins, tolerance)
        margins = None if cast.margins is None else cast.margins[:, : masks.num_masks].astype(float)
        fragile = np.zeros(singles.shape, bool)
        if tolerance and margins is not None:
            fragile = _fragile(margins, tolerance)
        return cls(singles, tally, margins, fragile, uniform, prediction, differing, cast.clean, clean_holds, tolerance)

    def __len__(self) -> int:
        return len(self.votes)

    def of_images(self, images: Ints | slice) -> Self:
        """The ballots of some images."""
        return type(self)(
            self.votes[images],
            Tally(self.tally.classes[images], self.tally.counts[images]),
            None if self.margins is None else self.margins[images],
            self.fragile[images],
            self.uniform[images],
            self.prediction[images],
            self.differing[images],
            None if self.clean is None else self.clean[images],
            self.clean_holds[images],
            self.tolerance,
        )


def exact_recovery(ballots: MaskBallots, covers: Covers) -> Answer:
    """Whether some uniform mask hides the patch, at every place. The slack is their smallest number, less one."""
    slack, sets = np.full((2, len(ballots)), -1)
    for part in _parts(len(ballots), len(covers.sets)):
        uniform = _counts(ballots.uniform[part], covers.sets)
        sets[part] = uniform.argmin(axis=1)
        slack[part] = uniform.min(axis=1) - 1
    return Answer(slack, covers.places[sets], is_bound=False)


def published_recovery(ballots: MaskBallots, covers: Covers) -> Answer:
    """Whether all votes show one class. The slack is, below 0, how many do not show the prediction."""
    return Answer(-ballots.differing, _no_places(ballots, covers), is_bound=False)


def exact_detection(ballots: MaskBallots, covers: Covers, *, alarm_below: float = 0.0) -> Answer:
    """Whether, at every place, some mask that hides the patch contradicts every class but that of the whole image.

    A mask contradicts a class by its vote, or raises an alarm by its margin. The slack is the smallest number of masks
    that do so, less one.

    Args:
        ballots: the votes.
        covers: of the patches.
        alarm_below: masks with smaller margins raise an alarm.
    Raises:
        RequestError: the classes of whole images are unknown.
        ValueError: margins are missing, and `alarm_below` is not 0.
    """
    clean, silent = _clean_of(ballots), _may_be_silent(ballots, alarm_below)
    slack, sets = np.full((2, len(ballots)), -1)
    for part in _parts(len(ballots), len(covers.sets)):
        any_class = _counts(silent[part] & ballots.fragile[part], covers.sets)
        agree = np.zeros_like(any_class)  # the most masks that may show one class that is not the whole image's
        for wrong in ballots.tally.classes[part].T:
            images = np.flatnonzero((wrong != NOBODY) & (wrong != clean[part]))
            show = silent[part][images] & ~ballots.fragile[part][images]
            show &= ballots.votes[part][images] == wrong[images, None]
            agree[images] = np.maximum(agree[images], any_class[images] + _counts(show, covers.sets))
        contradict = covers.sets.sum(axis=1) - agree
        sets[part] = contradict.argmin(axis=1)
        slack[part] = contradict.min(axis=1) - 1
    slack = np.where(ballots.clean_holds, slack, np.minimum(slack, -1))
    return Answer(slack, covers.places[sets], is_bound=False, alarms=_alarms(ballots, alarm_below))


def published_detection(ballots: MaskBallots, covers: Covers, *, alarm_below: float = 0.0) -> Answer:
    """Whether every mask shows the class of the whole image, or raises an alarm by its margin.

    The slack is, below 0, how many masks do neither. Takes and raises what `exact_detection` does.
    """
    wrong = ballots.fragile | (ballots.votes != _clean_of(ballots)[:, None])
    slack = -(wrong & _may_be_silent(ballots, alarm_below)).sum(axis=1)
    slack = np.where(ballots.clean_holds, slack, np.minimum(slack, -1))
    return Answer(slack, _no_places(ballots, covers), is_bound=False, alarms=_alarms(ballots, alarm_below))


class DoubleMasking(RuleFamily):
    """Masks: double masking, and detection by single masks."""

    predicted = Prediction
    certified = OwnThreat
    rules = {  # noqa: RUF012  of the class
        Certificate.recovery: (RuleName.exact, RuleName.published),
        Certificate.detection: (RuleName.exact, RuleName.published),
    }

    def ballots(
        self,
        cast: Cast,
        ablations: MaskSet,
        *,
        classes: int,
        tolerance: float = 0.0,
        known: MaskBallots | None = None,  # noqa: ARG002
    ) -> MaskBallots:
        return MaskBallots.of(cast, ablations, classes=classes, tolerance=tolerance)

    def certify(self, cast: Cast, ablations: MaskSet, *, classes: int) -> Certificates:
        ballots, covers = self.ballots(cast, ablations, classes=classes), ablations.own_covers()
        known = ballots.clean is not None and bool(ballots.clean_holds.all())
        detection = published_detection(ballots, covers).certified if known else None
        return Certificates(
            ballots.prediction,
            *(None,) * 5,
            exact_recovery(ballots, covers).certified,
            published_recovery(ballots, covers).certified,
            detection,
        )

    def rule(self, claim: Claim = Claim()) -> Rule:  # noqa: B008  frozen
        decide = _decision(claim)
        return lambda ballots, ablations, threat: decide(ballots, ablations.covers(threat))

    def answer_own_threat(self, counted: MaskBallots, ablations: MaskSet, claim: Claim = Claim()) -> Answer:  # noqa: B008
        return _decision(claim)(counted, ablations.own_covers())

    def slack_everywhere(self, counted: MaskBallots, ablations: MaskSet, height: int, width: int) -> Ints:
        hiding = ablations.hiding(height, width)
        slack = np.zeros((len(counted), len(hiding)), np.int64)
        for part in _parts(len(counted), len(hiding)):
            slack[part] = _counts(counted.uniform[part], hiding) - 1
        return slack


DOUBLE_MASKING = DoubleMasking()


def _decision(claim: Claim) -> Callable[[MaskBallots, Covers], Answer]:
    if claim.top != 1:
        raise _prediction_alone("--top", claim.top)
    if claim.of != Subject.prediction:
        raise _prediction_alone("--of", claim.of)
    if claim.rule not in (RuleName.exact, RuleName.published):
        raise RequestError(f"rule: {claim.rule} does not decide votes of masks; use exact or published")
    if claim.certificate == Certificate.recovery:
        if claim.alarm_below != 0:
            raise RequestError(f"alarm below {claim.alarm_below}: recovery raises no alarms; ask for detection")
        return exact_recovery if claim.rule == RuleName.exact else published_recovery
    if not claim.alarm_below >= 0:
        raise RequestError(f"alarm below {claim.alarm_below}: must be a margin, 0 or more")
    rule = exact_detection if claim.rule == RuleName.exact else published_detection
    return partial(rule, alarm_below=claim.alarm_below)


def _prediction_alone(option: str, value: object) -> RequestError:
    return RequestError(
        f"{option} {value}: votes of masks certify the prediction alone; leave {option} out, or ask a run of columns, "
        "rows or blocks"
    )


def _parts(images: int, numbers: int) -> Iterator[slice]:
    """Images to work on together, with so many numbers each."""
    together = max(1, _NUMBERS_AT_ONCE // numbers)
    for start in range(0, images, together):
        yield slice(start, start + together)


def _uniform(votes: NDArray[np.integer], masks: MaskSet) -> Bools:
    """[images, masks]: whether all votes in the row of a mask show one class."""
    rows = [(votes[:, row] == votes[:, one, None]).all(axis=1) for one, row in enumerate(masks.unions)]
    return np.stack(rows, axis=1) & (votes[:, : masks.num_masks] != NOBODY)


def _fragile(margins: NDArray[np.floating], tolerance: float) -> Bools:
    return ~(margins.astype(float) >= tolerance)  # NaN is fragile, too


def _counts(chosen: Bools, sets: Bools) -> Ints:
    """[images, sets]: how many of the chosen masks [images, masks] are in each set [sets, masks]."""
    counts = chosen.astype(np.float32) @ sets.T.astype(np.float32)  # small whole numbers: exact
    return counts.astype(np.int64)


def _no_places(ballots: MaskBallots, covers: Covers) -> Ints:
    return np.full((len(ballots), *covers.places.shape[1:]), -1)


def _clean_of(ballots: MaskBallots) -> NDArray[np.integer]:
    if ballots.clean is None or (len(ballots) and (ballots.clean < 0).all()):
        raise RequestError(
            "certificate detection: the run has no classes of whole images; certify again with `clean: true` in the job"
        )
    return ballots.clean


def _may_be_silent(ballots: MaskBallots, alarm_below: float) -> Bools:
    """[images, masks]: whether the margin of a mask may be so large that it raises no alarm."""
    if not alarm_below:
        return np.ones(ballots.votes.shape, bool)
    return ~(_margins_of(ballots) + ballots.tolerance < alarm_below)  # NaN may be any margin


def _alarms(ballots: MaskBallots, alarm_below: float) -> Bools:
    """[images]: whether an alarm sounds without any patch."""
    alarms = ballots.votes != _clean_of(ballots)[:, None]
    if alarm_below:
        alarms |= ~(_margins_of(ballots) >= alarm_below)
    return alarms.any(axis=1)


def _margins_of(ballots: MaskBallots) -> NDArray[np.float64]:
    if ballots.margins is None:
        raise ValueError("alarms by margins need margins")
    return ballots.margins
