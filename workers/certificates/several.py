"""Several patches: does a claim hold against them, and by how much? Answered without a list of their unions.

Notation of top_k.py. A union of k sets has a slack below some number only if its heaviest part S has one by the bound
for k patches (`slacks_of_parts`; docs/certificates.md, section 4). With S lost, the slack is that against the other
k - 1 patches. So, for each S with such a slack, S counts as fragile, and the question is asked again for one patch less.

    a union that is heavy by the votes for y    its slack is mostly the smallest, or close to it
    no S may lead to a smaller one              this slack is the answer
    the S with the smallest bound first         most others can give nothing smaller after that
    then the others                             a union that holds an S which was asked about before needs no second look

Whether a claim holds is the question for slacks below 0.

Not covered: what a set touched by one patch leaves of the slack (top_k.py).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.rules import Subject
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Threat, images_at_once, parts
from smoothcert.workers.ablations.touched import Pairs, Touched, Unions
from smoothcert.workers.certificates.rules import Answer, Ballots, Bools, Ints, Rule
from smoothcert.workers.certificates.top_k import as_slack, least_with_each, slacks_of_parts, surely_hold, top_k_rule, votes_for

Slacks = NDArray[np.float64]


def top_k_rule_of_several(top: int, of: Subject) -> Rule:
    """`top_k_rule`, which lists every union of several patches, without the lists."""
    rule = top_k_rule(top, of)

    def without_lists(ballots: Ballots, ablations: RowsTimesColumns, threat: Threat) -> Answer:
        reach = ablations.reach(threat)
        if not isinstance(reach, Pairs | Unions):
            return rule(ballots, ablations, threat)
        if ballots.votes.shape[1] != ablations.num_ablations:
            raise ValueError(f"{ballots.votes.shape[1]} votes an image do not fit {ablations.num_ablations} ablations")
        slack, sets = np.zeros((2, len(ballots)), np.int64)
        for part in parts(len(ballots), _numbers(reach.one)):
            some = ballots.of_images(part)
            found = _least(some, reach, _Question(reach.one, top, of))
            slack[part], sets[part] = as_slack(found.slacks, some, of), reach.choices.holding(found.chosen)
        return Answer(slack, reach.places(sets), is_bound=False)

    return without_lists


def holds_against_several(
    ballots: Ballots, ablations: RowsTimesColumns, threat: Threat, *, top: int, of: Subject
) -> Bools:
    """[images]: whether a class stays among the `top` classes with the most votes, exactly.

    Args:
        ballots: the votes.
        ablations: the ablations that voted.
        threat: the patches; a list of their unions would not be too long, or there are two on one axis.
        top, of: as for `top_k_rule`.
    Raises:
        RequestError: the patch is larger than the image.
    """
    one, reach = ablations.one_patch(threat), ablations.reach(threat)
    if not isinstance(reach, Pairs | Unions):
        return top_k_rule(top, of)(ballots, ablations, threat).certified
    holds = surely_hold(ballots, reach, top, of) if reach.is_quick else np.zeros(len(ballots), bool)
    is_open = np.flatnonzero(~holds)
    for part in parts(len(is_open), _numbers(one)):
        some = ballots.of_images(is_open[part])
        holds[is_open[part]] = _least(some, reach, _Question(one, top, of, signs=True)).slacks >= 0
    return holds


class _Least(NamedTuple):
    """The smallest slack of each image.

    Attributes:
        slacks: [images].
        chosen: [images, sets], the sets of one patch whose union has it.
    """

    slacks: Slacks
    chosen: Bools


@dataclass(frozen=True)
class _Question:
    """What is asked about the votes.

    Attributes:
        one: the sets that one patch touches.
        top, of: as for `top_k_rule`.
        signs: whether it is enough to know if a slack is below 0.
    """

    one: Touched
    top: int
    of: Subject
    signs: bool = False

    def slacks(self, ballots: Ballots, patches: int, below: Slacks) -> Slacks:
        """[images, sets]: as `slacks_of_parts`."""
        return slacks_of_parts(ballots, self.one, self.top, self.of, patches, below)


def _numbers(one: Touched) -> int:
    """In the tables of an image."""
    return 4 * one.num_sets + one.num_ablations


def _least(ballots: Ballots, reach: Pairs | Unions, asked: _Question) -> _Least:
    """The smallest slack of all unions; if signs are enough, any slack below 0 if there is one."""
    heavy = reach.heavy(votes_for(ballots, asked.of))
    union = reach.unions(heavy)
    lost = replace(ballots, fragile=union if ballots.fragile is None else union | ballots.fragile)
    slacks = slacks_of_parts(lost, asked.one.nothing, asked.top, asked.of, 1, np.full(len(ballots), np.inf))[:, 0]
    chosen = np.zeros((len(ballots), asked.one.num_sets), bool)
    np.put_along_axis(chosen, reach.choices.members(heavy), values=True, axis=1)
    if asked.signs:
        slacks = np.where(slacks < 0, -np.inf, 0)
    found = _below(ballots, asked, np.zeros(chosen.shape, bool), reach.patches, slacks, reach)
    is_less = found.slacks < slacks
    return _Least(found.slacks, np.where(is_less[:, None], found.chosen, chosen))


def _below(ballots: Ballots, asked: _Question, known: Bools, patches: int, least: Slacks, reach=None) -> _Least:
    """The smallest slack of unions of sets that are not known, [images, sets], if it is below the least so far."""
    chosen, least = np.zeros(known.shape, bool), least.copy()
    slacks = np.full(known.shape, -np.inf)
    if reach is not None and reach.is_quick and not asked.signs:
        slacks = least_with_each(ballots, reach, asked.top, asked.of).astype(np.float64)
    images = np.flatnonzero(slacks.min(axis=1) < least)
    slacks[images] = np.maximum(slacks[images], asked.slacks(ballots.of_images(images), patches, least[images]))
    slacks[known] = np.inf
    if patches == 1:
        sets = slacks.argmin(axis=1)
        chosen[np.arange(len(sets)), sets] = True
        return _Least(np.minimum(least, slacks.min(axis=1)), chosen)
    images = np.flatnonzero(slacks.min(axis=1) < least)
    order = slacks[images].argsort(axis=1)
    ordered, places = np.take_along_axis(slacks[images], order, axis=1), order.argsort(axis=1)
    start, at_once = 0, 1
    while start < order.shape[1]:
        some, place = np.nonzero(ordered[:, start : start + at_once] < least[images, None])
        if not len(some):
            break
        sets, these = order[some, start + place], images[some]
        votes = ballots.of_images(these)
        votes = replace(votes, fragile=asked.one.sets[sets] if votes.fragile is None else votes.fragile | asked.one.sets[sets])
        asked_before = known[these] | (places[some] < (start + place)[:, None])
        found = _below(votes, asked, asked_before, patches - 1, least[these])
        found.chosen[np.arange(len(sets)), sets] = True
        less = np.flatnonzero(found.slacks < least[these])
        less = less[found.slacks[less].argsort(kind="stable")[::-1]]  # the smallest one stays
        least[these[less]], chosen[these[less]] = found.slacks[less], found.chosen[less]
        if asked.signs:
            least[these[less]] = -np.inf
        start += at_once
        # Few calls, and bounded memory.
        at_once = min(2 * at_once, max(1, images_at_once(_numbers(asked.one)) // len(images)))
    return _Least(least, chosen)
