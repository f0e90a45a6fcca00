"""Does a claim hold against several patches? Decided without a list of the sets that they touch together.

Notation of top_k.py. A union of k sets breaks the claim only if its heaviest part S has a slack below 0 by the bound
for k patches (`slacks_of_parts`; docs/certificates.md, section 4). With S lost, the other k - 1 patches break it. So,
for each S with such a slack, S counts as fragile, and the question is asked again for one patch less.

    several patches on one axis      the heaviest union by the votes for y settles nearly all images
    no such S                        the claim holds
    the heaviest S first             most others fail at once
    then the others                  a union that holds an S which was asked about before needs no second look

Not covered: the slack (rules.py, top_k.py), which needs every union.
"""

from dataclasses import replace

import numpy as np

from smoothcert.manifests.rules import Subject
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Threat, images_at_once, parts
from smoothcert.workers.ablations.touched import Pairs, Touched, Unions
from smoothcert.workers.certificates.rules import Ballots, Bools
from smoothcert.workers.certificates.top_k import break_at_heaviest, slacks_of_parts, surely_hold


def holds_against_several(
    ballots: Ballots, ablations: RowsTimesColumns, threat: Threat, *, top: int, of: Subject
) -> Bools:
    """[images]: whether a class stays among the `top` classes with the most votes, exactly.

    Args:
        ballots: the votes.
        ablations: the ablations that voted.
        threat: the patches.
        top, of: as for `top_k_rule`.
    Raises:
        RequestError: the patch is larger than the image.
    """
    one, reach = ablations.one_patch(threat), ablations.reach(threat)
    patches, holds = min(threat.patches, one.num_sets), np.zeros(len(ballots), bool)
    if isinstance(reach, Pairs) or (isinstance(reach, Unions) and reach.arcs is not None):
        holds = surely_hold(ballots, reach, top, of)
        is_open = np.flatnonzero(~holds)
        is_open = is_open[~break_at_heaviest(ballots.of_images(is_open), reach, top, of)]
    else:
        is_open = np.arange(len(ballots))
    for part in parts(len(is_open), _numbers(one, top)):
        some = ballots.of_images(is_open[part])
        holds[is_open[part]] = _holds(some, one, np.zeros((len(some), one.num_sets), bool), patches, top, of)
    return holds


def _numbers(one: Touched, top: int) -> int:
    """In the tables of an image."""
    return (top + 3) * one.num_sets + one.num_ablations


def _holds(ballots: Ballots, one: Touched, known: Bools, patches: int, top: int, of: Subject) -> Bools:
    """[images]: whether no union of sets that are not known, [images, sets], breaks the claim."""
    holds = np.ones(len(ballots), bool)
    if patches > 1:  # what one patch breaks, several break
        holds = _holds(ballots, one, known, 1, top, of)
    images = np.flatnonzero(holds)
    slacks = slacks_of_parts(ballots.of_images(images), one, top, of, patches)
    slacks[known[images]] = np.inf
    if patches == 1:
        return slacks.min(axis=1) >= 0
    known, at_once = known.copy(), 1
    while (is_open := slacks.min(axis=1, initial=np.inf) < 0).any():
        images, slacks = images[is_open], slacks[is_open]
        order = slacks.argsort(axis=1)
        some, place = np.nonzero(np.take_along_axis(slacks, order[:, :at_once], axis=1) < 0)
        sets = order[some, place]
        earlier = order.argsort(axis=1)[some] < place[:, None]  # these are asked about at the same time
        asked = ballots.of_images(images[some])
        fragile = one.sets[sets] if asked.fragile is None else asked.fragile | one.sets[sets]
        asked, known_then = replace(asked, fragile=fragile), known[images[some]] | earlier
        still = _holds(asked, one, known_then, patches - 1, top, of)
        holds[images[some[~still]]] = False
        known[images[some], sets] = True
        slacks[some, sets] = np.inf
        slacks[~holds[images]] = np.inf
        # Few calls, and bounded memory.
        at_once = min(2 * at_once, max(1, images_at_once(_numbers(one, top)) // len(images)))
    return holds


def least_slack(ballots: Ballots, ablations: RowsTimesColumns, threat: Threat, *, top: int, of: Subject):
    one, reach = ablations.one_patch(threat), ablations.reach(threat)
    slack, sets = np.zeros(len(ballots)), np.zeros(len(ballots), np.int64)
    for part in parts(len(ballots), _numbers(one, top)):
        some = ballots.of_images(part)
        slack[part], sets[part] = _least_slack(some, reach, top, of)
    return slack, sets

STAT={'asks':0,'open':0,'images':0}
def _least_slack(ballots, reach, top, of):
    one = reach.one
    # begin with the union that holds the most votes for the subject
    sets = start(ballots, reach, of)
    chosen = np.zeros((len(ballots), one.num_sets), bool)
    np.put_along_axis(chosen, reach.choices.members(sets), True, axis=1)
    union = reach.unions(sets)
    lost = union if ballots.fragile is None else union | ballots.fragile
    best = slacks_of_parts(replace(ballots, fragile=lost), one.nothing, top, of, 1, np.full(len(ballots), np.inf))[:, 0]
    known = np.zeros((len(ballots), one.num_sets), bool)
    STAT['images']+=len(ballots)
    found, better = _search(ballots, one, known, reach.patches if hasattr(reach,'patches') else 2, top, of, best)
    is_better = found < best
    chosen[is_better] = better[is_better]
    return found, reach.choices.holding(chosen)

def start(ballots, reach, of):
    from smoothcert.workers.certificates.top_k import _subject
    is_own = ballots.votes == _subject(ballots, of)[:, None]
    weights = is_own if ballots.fragile is None else is_own & ~ballots.fragile
    weights = weights.astype(np.float32)
    if isinstance(reach, Pairs) or reach.arcs is not None:
        return reach.heaviest(weights).sets
    chosen = np.zeros((len(ballots), reach.one.num_sets), bool)
    for _ in range(reach.patches):
        s = reach.one.sums(weights).argmax(axis=1)
        chosen[np.arange(len(s)), s] = True
        weights = np.where(reach.one.sets[s], 0, weights)
    return reach.choices.holding(chosen)

def _search(ballots, one, known, patches, top, of, best):
    """least slack below best."""
    best = best.copy()
    chosen = np.zeros((len(ballots), one.num_sets), bool)
    slacks = slacks_of_parts(ballots, one, top, of, patches, best)
    slacks[known] = np.inf
    if patches == 1:
        sets = slacks.argmin(axis=1)
        chosen[np.arange(len(sets)), sets] = True
        return np.minimum(slacks.min(axis=1), best), chosen
    known, at_once = known.copy(), 1
    images = np.arange(len(ballots))
    first=True
    while (is_open := slacks.min(axis=1, initial=np.inf) < best[images]).any():
        if first: STAT['open']+=is_open.sum(); first=False
        images, slacks = images[is_open], slacks[is_open]
        order = slacks.argsort(axis=1)
        some, place = np.nonzero(np.take_along_axis(slacks, order[:, :at_once], axis=1) < best[images, None])
        sets = order[some, place]
        earlier = order.argsort(axis=1)[some] < place[:, None]
        asked = ballots.of_images(images[some])
        fragile = one.sets[sets] if asked.fragile is None else asked.fragile | one.sets[sets]
        asked, known_then = replace(asked, fragile=fragile), known[images[some]] | earlier
        STAT['asks']+=len(some)
        found, parts_ = _search(asked, one, known_then, patches - 1, top, of, best[images[some]])
        by = np.lexsort((found, some))[::-1]  # the least last
        better = by[found[by] < best[images[some[by]]]]
        best[images[some[better]]] = found[better]
        parts_[np.arange(len(sets)), sets] = True
        chosen[images[some[better]]] = parts_[better]
        known[images[some], sets] = True
        slacks[some, sets] = np.inf
        at_once = min(2 * at_once, max(1, images_at_once(_numbers(one, top)) // len(images)))
    return best, chosen
