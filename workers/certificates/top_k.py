"""Top-K: does a class stay among the K classes with the most votes?

Notation of rules.py and docs/certificates.md. The subject y is the prediction or the label. Of equal counts the lower
class comes first. T holds the votes that patches touch and the fragile ones, and u_c counts the votes for c outside T.
To come before y, rival r needs

    d_r = max(0, u_y - u_r + [y < r])        votes of T: its deficit.

y can be pushed out iff the K smallest deficits of rivals sum to at most |T|: the attacker gives K rivals what they
need, and what is left to one of them. So the slack is the smallest value, over all T, of

    (sum of the K smallest d_r) - |T| - 1

and y is certified iff it is 0 or more. A vote more in T lowers it or leaves it, so the largest sets are enough.

If k patches make too many unions to list, the slack is bounded from below. S is what one patch touches outside the
fragile votes F. A rival that comes before y already, n_y - n_r + [y < r] <= 0, counts 0, any other

    n_y - n_r + [y < r] - k (n_y(S) - n_r(S)) - (n_y(F) - n_r(F)),

and k |S| + |F| takes the place of |T|. Why this is sound: for K rivals, R of them not before y, the sum of their
deficits minus |T| is at least that of R, which falls by the weight 1 + |R| [v = y] - [v in R] >= 0 for each vote v in
T. A union weighs at most k times its heaviest part. No slack is below -A - 1, with A ablations.

Most images need no look at single rivals. If y loses at most o votes, and at most s are lost in all, each deficit is
at least max(0, n_y - n_r + [y < r] - o). If the K smallest of these sum to more than s, y stays (theorem 7a of
docs/certificates.md).

Not covered: the prediction against every rival (K = 1), by the exact rule: rules.py.
Source of the question: CostCert, arXiv 2507.23335.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from smoothcert.manifests.rules import Subject
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.search import Values
from smoothcert.workers.ablations.threats import Reach, Threat, Weights, parts
from smoothcert.workers.ablations.unions import Pairs, Unions
from smoothcert.workers.certificates.rules import Answer, Ballots, Bools, Ints, Rule
from smoothcert.workers.certificates.tally import NOBODY

NEVER_LEAVES = np.iinfo(np.int32).max
"""The slack where there are no K rivals: all classes are among the K."""

_FLOAT32_COUNTS = 1 << 23  # float32 holds whole numbers up to twice as large exactly


def top_k_rule(top: int, of: Subject) -> Rule:
    """The rule that decides whether a class stays among the `top` classes with the most votes.

    It takes and raises what `exact_rule` does. Images without a label are not certified for it.

    Args:
        top: K, 1 or more.
        of: which class.
    """

    def rule(ballots: Ballots, ablations: RowsTimesColumns, threat: Threat) -> Answer:
        if ballots.votes.shape[1] != ablations.num_ablations:
            raise ValueError(f"{ballots.votes.shape[1]} votes an image do not fit {ablations.num_ablations} ablations")
        subject = _subject(ballots, of)
        reach = ablations.reach(threat)
        if reach.is_bound:
            one = ablations.reach(threat._replace(patches=1))
            lost = _Lost.of(one, top, min(threat.patches, one.num_sets))
        else:
            lost = _Lost.of(reach, top)
        slack, sets = np.zeros((2, len(ballots)), np.int64)
        for part in parts(len(ballots), (top + 3) * lost.reach.num_sets + lost.reach.num_ablations):
            some = ballots.of_images(part)
            slacks = _slacks(some, subject[part], top, lost)
            slack[part], sets[part] = as_slack(slacks.min(axis=1).astype(np.float64), some, of), slacks.argmin(axis=1)
        return Answer(slack, reach.places(np.zeros_like(sets) if reach.is_bound else sets), reach.is_bound)

    return rule


def slacks_of_parts(ballots: Ballots, one: Reach, top: int, of: Subject, patches: int, below: Values) -> Values:
    """[images, sets]: for each set S of `one`, what no slack of a union is below whose heaviest part is S.

    For one patch it is the slack of S. For several it is the bound at the head of this file, taken at one S. No union
    is missed, because the bound is sound at the S that is the heaviest part of the union for the K rivals that come
    before y. Images without a label have -1 everywhere.

    Args:
        ballots: the votes.
        one: the sets that one patch touches.
        top, of: as for `top_k_rule`.
        patches: how many there are.
        below: [images]. Numbers that are not below this one may be any that are not.
    """
    subject, lost = _subject(ballots, of), _Lost.of(one, top, patches)
    slacks = np.full((len(ballots), one.num_sets), -1.0)
    for part in parts(len(ballots), 4 * one.num_sets + one.num_ablations):
        slacks[part] = _slacks_below(ballots.of_images(part), subject[part], top, lost, below[part])
    slacks[subject == NOBODY] = -1
    return slacks


def surely_hold(ballots: Ballots, reach: Reach, top: int, of: Subject) -> Bools:
    """[images]: true only where no set of `reach` breaks the claim. Asks for heaviest sets alone.

    Sound, because no set holds more votes for the subject, or more votes in all, than the heaviest one by these.
    """
    subject, lost = _subject(ballots, of), _Lost.of(_OnlyHeaviest(reach), top)
    count = (ballots.votes == subject[:, None]).sum(axis=1)
    own, size = lost.count(ballots.votes == subject[:, None], ballots.fragile), lost.size(ballots.fragile, len(count))
    leads = _smallest_leads(ballots, subject, top)
    return (_bounds(leads, lost, own, size)[:, 0] >= 0) & (subject != NOBODY)


def least_with_each(ballots: Ballots, reach: Pairs | Unions, top: int, of: Subject) -> Values:
    """[images, sets of one patch]: what no slack of a union that holds this set is below. Sound as `surely_hold` is.

    Args:
        ballots: the votes.
        reach: of several patches, quick.
        top, of: as for `top_k_rule`.
    """
    subject, lost = _subject(ballots, of), _Lost.of(_HeaviestWithEach(reach), top)
    count = (ballots.votes == subject[:, None]).sum(axis=1)
    own, size = lost.count(ballots.votes == subject[:, None], ballots.fragile), lost.size(ballots.fragile, len(count))
    return _bounds(_smallest_leads(ballots, subject, top), lost, own, size).astype(np.float64)


def votes_for(ballots: Ballots, of: Subject) -> Weights:
    """[images, ablations]: 1 for votes for the subject that are not fragile."""
    is_own = ballots.votes == _subject(ballots, of)[:, None]
    return (is_own if ballots.fragile is None else is_own & ~ballots.fragile).astype(np.float32)


def as_slack(slacks: Values, ballots: Ballots, of: Subject) -> Ints:
    """[images]: the slack of an answer; images without a label have the lowest one."""
    lowest = -1 - ballots.votes.shape[1]
    bounded = np.minimum(np.maximum(slacks, lowest), NEVER_LEAVES).astype(np.int64)
    return np.where(_subject(ballots, of) == NOBODY, lowest, bounded)


def _subject(ballots: Ballots, of: Subject) -> Ints:
    """[images]: the class in question, NOBODY for an image without a usable label."""
    if of == Subject.prediction:
        return ballots.prediction.astype(np.int64)
    if ballots.labels is None:
        raise ValueError("a claim of the label needs labels")
    labels = ballots.labels.astype(np.int64)
    return np.where(labels < ballots.classes, labels, NOBODY)


@dataclass(frozen=True)
class _OnlyHeaviest(Reach):
    """One set that stands for all: whatever is summed, it weighs as much as the heaviest."""

    reach: Reach
    is_bound: bool = True
    num_sets: int = 1

    @property
    def num_ablations(self) -> int:
        return self.reach.num_ablations

    def sums(self, weights: Weights) -> Weights:
        return self.reach.heaviest(weights).sums[:, None]

    def places(self, sets: Ints) -> Ints:
        """-1 for every coordinate, because the set belongs to no place."""
        return np.full((len(sets), 1, 2), -1)


@dataclass(frozen=True)
class _HeaviestWithEach(Reach):
    """A set for each set S of one patch, that stands for all unions that hold S."""

    reach: Pairs | Unions
    is_bound: bool = True

    @property
    def num_sets(self) -> int:
        return self.reach.one.num_sets

    @property
    def num_ablations(self) -> int:
        return self.reach.num_ablations

    def sums(self, weights: Weights) -> Weights:
        return self.reach.sums_with_each(weights)

    def places(self, sets: Ints) -> Ints:
        """-1 for every coordinate, because the set belongs to no place."""
        return np.full((len(sets), 1, 2), -1)


@dataclass(frozen=True)
class _Lost:
    """The votes that the attacker sets: those of a set, `times`, and the fragile ones.

    Attributes:
        reach: of the patches, or of one if there are bounds only.
        number: a type that holds all sums exactly.
        times: how many sets of `reach` patches touch together, if there are bounds only.
    """

    reach: Reach
    number: type[np.floating]
    times: int = 1
    is_bound: bool = False

    @classmethod
    def of(cls, reach: Reach, top: int, times: int = 1) -> Self:
        """Exactly the sets of `reach`, or bounds for several of them together."""
        fits = top * (times + 1) * reach.num_ablations < _FLOAT32_COUNTS
        return cls(reach, np.float32 if fits else np.float64, times, is_bound=times > 1)

    def count(self, which: Bools, fragile: Bools | None) -> Weights:
        """[images, sets]: how many of the votes [images, ablations] are lost."""
        touched = self.reach.sums((which if fragile is None else which & ~fragile).astype(np.float32))
        counted = self.times * touched.astype(self.number, copy=False)
        return counted if fragile is None else counted + (which & fragile).sum(axis=1, keepdims=True, dtype=self.number)

    def size(self, fragile: Bools | None, images: int) -> Weights:
        """[images, sets]: how many votes are lost."""
        if fragile is not None:
            return self.count(np.ones(fragile.shape, bool), fragile)
        of_one = self.count(np.ones((1, self.reach.num_ablations), bool), None)
        return np.broadcast_to(of_one, (images, of_one.shape[1]))

    def most(self, fragile: Bools | None) -> Weights:
        """[images or 1, 1]: no set makes more votes lost."""
        largest = self.size(None, 1).max(keepdims=True)
        if fragile is None:
            return largest
        return np.minimum(largest + fragile.sum(axis=1, keepdims=True), self.times * fragile.shape[1]).astype(
            self.number
        )

    def deficits(self, lead: Weights, gained: Weights) -> Weights:
        """[images, sets]: what a rival needs.

        Args:
            lead: [images, 1], n_y - n_r + [y < r].
            gained: [images, sets], its lost votes minus those of the subject.
        """
        return np.where(lead > 0, lead + gained, 0) if self.is_bound else np.maximum(lead + gained, 0)

    def least(self, lead: Weights, own: Weights) -> Weights:
        """[images, sets]: no rival with this lead or a larger one needs less; `own`: the subject's lost votes."""
        return lead - own if self.is_bound else np.maximum(lead - own, 0)


def _slacks(ballots: Ballots, subject: Ints, top: int, lost: _Lost) -> Weights:
    """[images, sets]: the slack of each set; of an image, only the smallest is exact."""
    votes, fragile, tally, images = ballots.votes, ballots.fragile, ballots.tally, np.arange(len(ballots))
    count = (votes == subject[:, None]).sum(axis=1)
    own = lost.count(votes == subject[:, None], fragile)
    size = lost.size(fragile, len(votes))
    needed = np.full((top, *own.shape), np.inf, own.dtype)  # the smallest deficits of the rivals so far, ascending
    for place, lead in enumerate(_leads_without_votes(ballots, subject, count, top).T):
        needed[place] = lost.deficits(lead[:, None].astype(own.dtype), -own)
    slacks = _after(needed, size)

    for rank in range(tally.classes.shape[1]):
        rivals = tally.classes[images, rank]
        lead = (count[images] - tally.counts[images, rank] + (subject[images] < rivals))[:, None].astype(own.dtype)
        lowest = _after(np.minimum(needed, lost.least(lead, own)), size)
        may_fall = (lowest < slacks[images].min(axis=1, keepdims=True)).any(axis=1)
        matters = may_fall & (tally.counts[images, rank] > 0)
        if not matters.any():  # leads rise with the rank: later rivals do not matter either
            break
        if not matters.all():
            images, rivals, lead = images[matters], rivals[matters], lead[matters]
            needed, own, size = needed[:, matters], own[matters], size[matters]
        won = lost.count(votes[images] == rivals[:, None], None if fragile is None else fragile[images])
        deficits = lost.deficits(lead, won - own)
        deficits[rivals == subject[images]] = np.inf  # y is no rival of its own
        _keep_smallest(needed, deficits)
        slacks[images] = _after(needed, size)
    return slacks


def _slacks_below(ballots: Ballots, subject: Ints, top: int, lost: _Lost, limit: Values) -> Weights:
    """[images, sets]: the slack of each set that has less than the limit of its image; at least the limit of others.

    Bounds say of most sets that they are others, so that each set that is left is looked at alone.
    """
    votes, fragile, tally = ballots.votes, ballots.fragile, ballots.tally
    count, leads = (votes == subject[:, None]).sum(axis=1), _smallest_leads(ballots, subject, top)
    own = lost.count(votes == subject[:, None], fragile)
    slacks = np.repeat(_bounds(leads, lost, own.max(axis=1, keepdims=True), lost.most(fragile)), own.shape[1], axis=1)
    images = np.flatnonzero(slacks[:, 0] < limit)  # by all sets together; now by each
    own, size = own[images], lost.size(None if fragile is None else fragile[images], len(images))
    bounds = _bounds(leads[images], lost, own, size)
    slacks[images] = bounds
    row, sets = np.nonzero(bounds < limit[images, None])
    image, own, size = images[row], own[row, sets], size[row, sets]
    needed = np.full((top, len(image)), np.inf, own.dtype)
    for place, lead in enumerate(_leads_without_votes(ballots, subject, count, top).T):
        needed[place] = lost.deficits(lead[image].astype(own.dtype), -own)
    slacks[image, sets] = _after(needed, size)
    for rank in range(tally.classes.shape[1]):
        rivals = tally.classes[:, rank]
        lead = (count - tally.counts[:, rank] + (subject < rivals))[image].astype(own.dtype)
        lowest = _after(np.minimum(needed, lost.least(lead, own)), size)
        may_fall = lowest < np.minimum(slacks[image, sets], limit[image])
        matters = may_fall & (tally.counts[image, rank] > 0)
        if not matters.any():
            break
        image, sets, lead = image[matters], sets[matters], lead[matters]
        needed, own, size = needed[:, matters], own[matters], size[matters]
        first = np.flatnonzero(np.diff(image, prepend=-1))  # of each image
        images, row = image[first], np.repeat(np.arange(len(first)), np.diff(first, append=len(image)))
        won = lost.count(votes[images] == rivals[images, None], None if fragile is None else fragile[images])
        deficits = lost.deficits(lead, won[row, sets] - own)
        deficits[rivals[image] == subject[image]] = np.inf
        _keep_smallest(needed, deficits)
        slacks[image, sets] = _after(needed, size)
    return slacks


def _keep_smallest(needed: Weights, deficits: Weights) -> None:
    """Put deficits [...] in their places among the smallest ones so far, [K, ...], ascending."""
    for place in range(len(needed)):
        smaller = np.minimum(needed[place], deficits)
        np.maximum(needed[place], deficits, out=deficits)
        needed[place] = smaller


def _bounds(leads: Values, lost: _Lost, own: Weights, size: Weights) -> Weights:
    """[images, sets]: what no slack is below: that of an attacker who takes no votes of rivals away.

    Args:
        leads: [images, K], the smallest ones.
        lost: the votes that the attacker sets.
        own, size: [images, sets], how many of the subject's votes and of all are lost, at most.
    """
    bounds = np.broadcast_to(-size - 1, own.shape).copy()
    for lead in leads.T:
        bounds += lost.least(lead[:, None].astype(own.dtype), own)
    return bounds


def _smallest_leads(ballots: Ballots, subject: Ints, top: int) -> Values:
    """[images, K], ascending: the smallest leads n_y - n_r + [y < r] over rivals; infinite where there are too few.

    Args:
        ballots: the votes.
        subject: [images], the class.
        top: K.
    """
    count = (ballots.votes == subject[:, None]).sum(axis=1)
    classes, counts = (table[:, : top + 1] for table in ballots.tally)  # one may be the subject's
    leads = count[:, None] - counts + (subject[:, None] < classes)
    leads = np.where((counts > 0) & (classes != subject[:, None]), leads, np.inf)
    others = _leads_without_votes(ballots, subject, count, top)
    smallest: Values = np.sort(np.concatenate([leads, others], axis=1), axis=1)[:, :top]
    return smallest


def _leads_without_votes(ballots: Ballots, subject: Ints, count: Ints, top: int) -> Values:
    """[images, K], ascending: the leads over rivals without votes; infinite where there are fewer than K."""
    below, above = (number[:, None] for number in _without_votes(ballots, subject))
    places = np.arange(top)
    leads: Values = np.select([places < below, places < below + above], [count[:, None], count[:, None] + 1], np.inf)
    return leads


def _after(needed: Weights, size: Weights) -> Weights:
    """[images, sets]: the slacks.

    Args:
        needed: [K, images, sets], the smallest deficits.
        size: [images, sets], how many votes are lost.
    """
    slacks: Weights = needed.sum(axis=0) - size - 1
    return slacks


def _without_votes(ballots: Ballots, subject: Ints) -> tuple[Ints, Ints]:
    """[images] each: how many rivals without votes are below the subject, and how many above."""
    voted, classes = ballots.tally.counts > 0, ballots.tally.classes
    below = subject - (voted & (classes < subject[:, None])).sum(axis=1)
    above = ballots.classes - 1 - subject - (voted & (classes > subject[:, None])).sum(axis=1)
    return below, above


def labels_on_top(ballots: Ballots, top: int) -> Bools:
    """[images]: whether the label is among the `top` classes with the most votes; false without a usable label."""
    labels, tally = _subject(ballots, Subject.label), ballots.tally
    count = (ballots.votes == labels[:, None]).sum(axis=1)
    leads = count[:, None] - tally.counts + (labels[:, None] < tally.classes)
    before = ((leads <= 0) & (tally.counts > 0) & (tally.classes != labels[:, None])).sum(axis=1)
    below, _ = _without_votes(ballots, labels)
    return (labels != NOBODY) & (before + np.where(count == 0, below, 0) < top)
