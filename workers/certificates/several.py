"""Does a claim hold against several patches? Decided without a list of the sets that they touch together.

Notation of top_k.py. A union of k sets breaks the claim only if its heaviest part S has a slack below 0 by the bound
for k patches (`slacks_of_parts`; docs/certificates.md, section 4). With S lost, the other k - 1 patches break it. So,
for each S with such a slack, S counts as fragile, and the question is asked again for one patch less.

    no such S                        the claim holds: most certified images end here
    the heaviest S first             most others fail at once
    then one S after another         a union that holds an S which did not break the claim needs no second look

Not covered: the slack (rules.py, top_k.py), which needs every union.
"""

from dataclasses import replace

import numpy as np

from smoothcert.manifests.rules import Subject
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Threat, parts
from smoothcert.workers.ablations.touched import Touched
from smoothcert.workers.certificates.rules import Ballots, Bools
from smoothcert.workers.certificates.top_k import slacks_of_parts


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
    one = ablations.one_patch(threat)
    patches, holds = min(threat.patches, one.num_sets), np.zeros(len(ballots), bool)
    for part in parts(len(ballots), (top + 3) * one.num_sets + one.num_ablations):
        some = ballots.of_images(part)
        holds[part] = _holds(some, one, np.zeros((len(some), one.num_sets), bool), patches, top, of)
    return holds


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
    known = known.copy()
    while len(images := images[slacks.min(axis=1) < 0]):
        slacks = slacks[slacks.min(axis=1) < 0]
        heaviest = slacks.argmin(axis=1)
        some, lost = ballots.of_images(images), one.sets[heaviest]
        fragile = lost if some.fragile is None else some.fragile | lost
        still = _holds(replace(some, fragile=fragile), one, known[images], patches - 1, top, of)
        holds[images[~still]] = False
        known[images, heaviest] = True
        slacks[np.arange(len(images)), heaviest] = np.inf
        images, slacks = images[still], slacks[still]
    return holds
