"""Does a claim hold against several patches? Decided without a list of the sets that they touch together.

Notation of top_k.py. A union of k sets breaks the claim only if its heaviest part S has a slack below 0 by the bound
for k patches (`slacks_of_parts`; docs/certificates.md, section 4). With S lost, the other k - 1 patches break it. So,
for each S with such a slack, S counts as fragile, and the question is asked again for one patch less.

    two patches on one axis          the heaviest union by the votes for y settles nearly all images
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
from smoothcert.workers.ablations.touched import Pairs, Touched
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
    if isinstance(reach, Pairs):
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
