"""The kinds of ablations: each is listed once, here.

A kind is a class with the members of `Ablations`. Engines, queries and tables use no other members. Only the rules of
the kind's family (certificates/families.py) know more of it.

    rows times columns   columns, rows and blocks: geometry.py says what they show, unions.py what threats touch
    masks                masks.py says what they hide, and which of them hide a threat
"""

from functools import lru_cache
from typing import Protocol, Self

from smoothcert.manifests.ablation import Ablation, MaskAblation
from smoothcert.workers.ablations import unions
from smoothcert.workers.ablations.geometry import Geometry, Ints
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.ablations.shown import Bools, Shown
from smoothcert.workers.ablations.threats import Reach, Threat
from smoothcert.workers.ablations.touched import Touched, reach_of_one


class Ablations(Shown, Protocol):
    """The ablations of an image: what each shows, and which of them a threat touches."""

    def coarser(self, times: int) -> tuple[Self, Ints]:
        """The ablations with a stride `times` as long, and the positions of their votes.

        Args:
            times: 1 or more; 1 for masks.
        """

    def first_pixels(self) -> Ints:
        """[ablations, 2]: top and left pixel of what each shows, or hides if it is a mask. One that wraps around begins
        before the edge.
        """

    def refuse(self, threat: Threat) -> None:
        """Refuse patches for which the votes have no answer.

        Raises:
            RequestError: the patch is larger than the image, or masks are too small for it.
        """

    def touched_at(self, height: int, width: int, top: int, left: int) -> Bools:
        """[ablations]: which ablations a patch at one place touches.

        Args:
            height, width: of the patch, in pixels.
            top, left: its first pixel.
        """


class RowsTimesColumns(Geometry):
    """Columns, rows or blocks."""

    def reach(self, threat: Threat) -> Reach:
        """The largest sets of ablations that a threat can touch; errors as for `refuse`."""
        return unions.reach(self, threat)

    def one_patch(self, threat: Threat) -> Touched:
        """The largest sets that one patch of a threat can touch; errors as for `refuse`."""
        return reach_of_one(self, threat._replace(patches=1))

    def everywhere(self, height: int, width: int) -> Reach:
        """A set for each place of one patch, in row-major order: what the patch touches there.

        Args:
            height, width: of the patch, in pixels.
        """
        return Touched.everywhere(self, height, width)

    def refuse(self, threat: Threat) -> None:
        self.reach(threat)


def ablations_of(ablation: Ablation, height: int, width: int) -> Ablations:
    """The ablations that a job names.

    Args:
        ablation: of the job.
        height, width: of the image after the crop, in pixels.
    Raises:
        RequestError: the ablation is larger than the image.
    """
    return _ablations_of(ablation, height, width)


@lru_cache(maxsize=64)  # unions.py and masks.py know what they found for the same object
def _ablations_of(ablation: Ablation, height: int, width: int) -> RowsTimesColumns | MaskSet:
    if isinstance(ablation, MaskAblation):
        return MaskSet.of(ablation, height, width)
    return RowsTimesColumns.of(ablation, height, width)
