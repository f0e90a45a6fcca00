"""Whether the peer's answers are ours.

Answers are compared twice. Votes: counts may differ by no more votes than ours have margins below 1e-4. Certificates:
ART's rule for ViTs certifies where the gap to the runner-up is above 2 (m + b - 1), for blocks 2 (m + b - 1)^2. At
stride 1 it is sound: it is our margin rule without the tie-break. So it must agree with that rule on our votes, for
every m. At equality ours also certifies if the tie would go to the prediction. ART's own tie-break (its levine2020) is
not compared: it looks at only one of several equal runners-up, so it can be wrong.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer_sides import Settings
from smoothcert.manifests.ablation import ablation_of
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.touched import Touched
from smoothcert.workers.certificates.tally import count_votes

CLEAR = 1e-4
"""A float32 margin that is larger than any effect of the order of summation."""


class Agreement(NamedTuple):
    """How both sides' answers agree. Sizes are the squares of 1 x 1 up to the image's.

    Attributes:
        votes: all votes of one side.
        fragile_votes: ours with a margin below 1e-4.
        moved_votes: the smallest number of votes that can explain the difference between the two sides' counts.
        unexplained_images: images with more moved than fragile votes; expected 0.
        larger_by_exact: images whose largest square is larger by our exact rule than by ART's.
        certified_art, certified_margin, certified_exact: images, at the size asked for; ART's rule, ours, our exact.
        certified_by_tie: of certified_margin, those whose gap is exactly what the patch can close.
        rules_differ: pairs of image and size where ART's rule and the same rule on our votes disagree.
        rules_differ_same_counts: those of them whose images have equal counts; expected 0.
    """

    votes: int
    fragile_votes: int
    moved_votes: int
    unexplained_images: int
    larger_by_exact: int
    certified_art: int
    certified_margin: int
    certified_by_tie: int
    certified_exact: int
    rules_differ: int
    rules_differ_same_counts: int

    @property
    def holds(self) -> bool:
        return not self.unexplained_images and not self.rules_differ_same_counts


def compare(settings: Settings, ours: dict[str, NDArray[Any]], art: dict[str, NDArray[Any]]) -> Agreement:
    """Compare both sides' answers, as peer_sides.py writes them."""
    votes, classes = ours["votes"], settings.classes
    counts = np.stack([np.bincount(row, minlength=classes) for row in votes])
    moved = np.abs(counts - art["counts"]).sum(axis=1) // 2
    fragile = (ours["margins"] < CLEAR).sum(axis=1)

    sides = np.arange(1, settings.crop + 1)
    tally = count_votes(votes, classes=classes)
    gap = tally.counts[:, 0] - tally.counts[:, 1]
    geometry = geometry_of(settings)
    closed = 2 * np.array([Touched.everywhere(geometry, side, side).most for side in sides.tolist()])
    strict = gap[:, None] > closed
    margin = ours["margin"][:, None] >= sides
    differ = strict != art["certified"]
    asked = settings.patch - 1
    return Agreement(
        votes=votes.size,
        fragile_votes=int(fragile.sum()),
        moved_votes=int(moved.sum()),
        unexplained_images=int((moved > fragile).sum()),
        larger_by_exact=int((ours["exact"] > art["certified"].sum(axis=1)).sum()),
        certified_art=int(art["certified"][:, asked].sum()),
        certified_margin=int(margin[:, asked].sum()),
        certified_by_tie=int((margin & ~strict)[:, asked].sum()),
        certified_exact=int((ours["exact"] >= settings.patch).sum()),
        rules_differ=int(differ.sum()),
        rules_differ_same_counts=int(differ[moved == 0].sum()),
    )


def geometry_of(settings: Settings) -> Geometry:
    ablation = ablation_of({"kind": settings.kind, "size": settings.size})
    return Geometry.of(ablation, settings.crop, settings.crop)
