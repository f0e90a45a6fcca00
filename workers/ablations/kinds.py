"""The kinds of ablations: each is listed once, here.

A kind is a class with the members of `Ablations`. Engines, certificates, queries and tables use no other members, so a
new kind needs only a module of its own and an entry in the table below.

    rows times columns   columns, rows and blocks: geometry.py says what they show, touched.py what threats touch
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, Self

from smoothcert.manifests.job import Ablation
from smoothcert.workers.ablations import touched
from smoothcert.workers.ablations.geometry import Geometry, Ints
from smoothcert.workers.ablations.shown import Bools, Shown
from smoothcert.workers.ablations.threats import Reach, Threat


class Ablations(Shown, Protocol):
    """The ablations of an image: what each shows, and which of them a threat touches."""

    def coarser(self, times: int) -> tuple[Self, Ints]:
        """The ablations with a stride `times` as long, and the positions of their votes.

        Args:
            times: 1 or more.
        """

    def first_pixels(self) -> Ints:
        """[ablations, 2]: top and left pixel of what each shows. One that wraps around begins before the edge."""

    def reach(self, threat: Threat) -> Reach:
        """The largest sets of ablations that a threat can touch.

        Raises:
            RequestError: the patch is larger than the image.
        """

    def everywhere(self, height: int, width: int) -> Reach:
        """A set for each place of one patch, in row-major order: what the patch touches there.

        Args:
            height, width: of the patch, in pixels.
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
        return touched.reach(self, threat)

    def everywhere(self, height: int, width: int) -> Reach:
        return touched.Touched.everywhere(self, height, width)


_of_settings = lru_cache(maxsize=64)(RowsTimesColumns.of)  # touched.py knows what it found for the same object

_KINDS: dict[str, Callable[[Ablation, int, int], Ablations]] = {
    "column": _of_settings,
    "row": _of_settings,
    "block": _of_settings,
}


def ablations_of(ablation: Ablation, height: int, width: int) -> Ablations:
    """The ablations that a job names.

    Args:
        ablation: of the job.
        height, width: of the image after the crop, in pixels.
    Raises:
        RequestError: the ablation is larger than the image.
    """
    return _KINDS[ablation.kind](ablation, height, width)
