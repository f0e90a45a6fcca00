"""Several patches: does a claim hold against them, and by how much? Answered without a list of their unions.

Notation of top_k.py. A union of k sets has a slack below some number only if its heaviest part S has one by the bound
for k patches (`slacks_of_parts`; docs/certificates.md, section 4). With S lost, the slack is that against the other
k - 1 patches. search.py finds the smallest one so.

    first a union that is heavy by the votes for y    its slack is mostly the smallest, or close to it
    on one axis                                       bounds for all unions that hold S leave few S (`least_with_each`)
    few unions                                        their slacks are computed one by one, without a search
    does the claim hold?                              any slack below 0 ends the search

Not covered: the slack if one set is lost (top_k.py).
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from smoothcert.manifests.rules import Subject
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.search import Partial, Search, Values
from smoothcert.workers.ablations.threats import Threat, images_at_once, parts
from smoothcert.workers.ablations.touched import Touched
from smoothcert.workers.ablations.unions import Pairs, Unions
from smoothcert.workers.certificates.rules import Answer, Ballots, Bools, Ints, Rule
from smoothcert.workers.certificates.top_k import (
    as_slack,
    least_with_each,
    slacks_of_parts,
    surely_hold,
    top_k_rule,
    votes_for,
)


def top_k_rule_of_several(top: int, of: Subject) -> Rule:
    """`top_k_rule`, which lists every union of several patches, without the lists where they are long."""
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
            slacks, sets[part] = _least(some, reach, top, of)
            slack[part] = as_slack(slacks, some, of)
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
        slacks, _ = _least(some, reach, top, of, signs=True)
        holds[is_open[part]] = slacks >= 0
    return holds


@dataclass(frozen=True)
class _Attacked(Partial):
    """Images of which some sets are lost: their votes count as fragile. A value is a slack.

    Attributes:
        ballots: the votes.
        one: the sets that one patch touches.
        top, of: as for `top_k_rule`.
    """

    ballots: Ballots
    one: Touched
    top: int
    of: Subject

    def bounds(self, sets: int, below: Values) -> Values:
        return slacks_of_parts(self.ballots, self.one, self.top, self.of, sets, below)

    def taking(self, images: Ints, sets: Ints) -> Self:
        return self.losing(self.ballots.of_images(images), self.one.sets[sets])

    def losing(self, ballots: Ballots, lost: Bools) -> Self:
        """The same about other ballots, with more votes [images, ablations] lost."""
        return replace(
            self, ballots=replace(ballots, fragile=lost if ballots.fragile is None else ballots.fragile | lost)
        )

    def slacks(self, below: float) -> Values:
        """[images]: the slack if no more is lost, or `below` if that is smaller."""
        limit = np.full(len(self.ballots), below)
        slacks = slacks_of_parts(self.ballots, self.one.nothing, self.top, self.of, 1, limit)[:, 0]
        return np.minimum(slacks, below)


def _numbers(one: Touched) -> int:
    """In the tables of an image."""
    return 4 * one.num_sets + one.num_ablations


def _least(
    ballots: Ballots, reach: Pairs | Unions, top: int, of: Subject, *, signs: bool = False
) -> tuple[Values, Ints]:
    """[images] each: the smallest slack of all unions, and a union that has it. For signs, any slack below 0 will do,
    and 0 for all others.
    """
    sets = reach.heavy(votes_for(ballots, of))
    slacks = _Attacked(ballots, reach.one, top, of).losing(ballots, reach.unions(sets)).slacks(0 if signs else np.inf)
    images = np.flatnonzero(slacks >= 0) if signs else np.arange(len(ballots))
    some, known = ballots.of_images(images), slacks[images]
    if isinstance(reach, Unions) and reach.is_short:
        listed = slacks_of_parts(some, reach, top, of, 1, known)
        less = np.flatnonzero(listed.min(axis=1) < known)
        slacks[images[less]], sets[images[less]] = listed[less].min(axis=1), listed[less].argmin(axis=1)
        return slacks, sets

    def floors(images: Ints) -> Values:
        return least_with_each(some.of_images(images), reach, top, of)

    search = Search(reach.one.num_sets, images_at_once(_numbers(reach.one)), enough=0 if signs else -np.inf)
    start = _Attacked(some, reach.one, top, of)
    found = search.least(start, reach.patches, known, floors if reach.is_quick else None)
    less = np.flatnonzero(found.values < known)
    slacks[images[less]], sets[images[less]] = found.values[less], reach.choices.holding(found.chosen[less])
    return slacks, sets
