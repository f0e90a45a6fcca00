"""Threats, and the sets of ablations that a threat can touch.

A patch at one place touches the set of ablations that show at least one of its pixels. The attacker chooses these votes
freely, and no others. Each vote has a weight, a whole number from 0 on. Rules (certificates/rules.py) ask for the sum
of the weights over a set, or for the heaviest set.

Not covered: how a kind of ablation finds its sets (unions.py, for rows times columns).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.arguments import several
from smoothcert.manifests.errors import RequestError

Ints = NDArray[np.int64]
Patch = int | tuple[int, int]
"""As callers give it: the side of a square, or height and width, in pixels."""
Weights = NDArray[np.float32]

NUMBERS_AT_ONCE = 1 << 20
"""In the tables of all images that are worked on together: bounds the memory, and caches hold most of them."""


class Threat(NamedTuple):
    """The attacker's patches: `patches` rectangles of `height` x `width` pixels, anywhere inside the image."""

    height: int
    width: int
    patches: int = 1


def rectangle(patch: Patch) -> tuple[int, int]:
    """Height and width of a patch.

    Raises:
        RequestError: it is not one whole number or two.
    """
    height, width = patch if isinstance(patch, tuple | list) and len(patch) == 2 else (patch, patch)
    for side in (height, width):
        if not isinstance(side, int | np.integer) or isinstance(side, bool):
            raise RequestError(f"patch {patch!r}: must be the side of a square or (height, width), in whole pixels")
    return int(height), int(width)


def rectangles(patches: Patch | Sequence[Patch]) -> list[tuple[int, int]]:
    """Height and width of each patch; one number is one square, and `(4, 8)` are two.

    Raises:
        RequestError: as for `rectangle`.
    """
    return [*map(rectangle, several(patches))]


class Heaviest(NamedTuple):
    """The heaviest set of each image.

    Attributes:
        sums: [images], what it weighs.
        sets: [images], which it is; of equal ones, any.
    """

    sums: Weights
    sets: Ints


class Reach(Protocol):
    """The sets of ablations that a threat can touch. A set that lies within another may be left out.

    Classes that inherit find the heaviest set among the sums of all.

    Attributes:
        is_bound: whether `sums` is only an upper bound, which no place of the patches need reach.
        num_sets: how many sums an image has.
        num_ablations: how many weights an image has.
    """

    @property
    def is_bound(self) -> bool: ...
    @property
    def num_sets(self) -> int: ...
    @property
    def num_ablations(self) -> int: ...
    def sums(self, weights: Weights) -> Weights:
        """[images, sets]: the sum over each set of weights [images, ablations], all 0 or more."""

    def places(self, sets: Ints) -> Ints:
        """[n, patches, 2]: top and left pixel of patches that touch each of the n sets."""

    def heaviest(self, weights: Weights) -> Heaviest:
        """The heaviest set of each image, by weights [images, ablations], all 0 or more."""
        found = Heaviest(np.zeros(len(weights), np.float32), np.zeros(len(weights), np.int64))
        for part in parts(len(weights), self.num_sets):
            sums = self.sums(weights[part])
            found.sets[part] = sums.argmax(axis=1)
            found.sums[part] = sums.max(axis=1)
        return found


def images_at_once(numbers: int) -> int:
    """How many images are worked on together, with so many numbers each."""
    return max(1, NUMBERS_AT_ONCE // max(1, numbers))


def parts(images: int, numbers: int) -> Iterator[slice]:
    """Images to work on together.

    Args:
        images: how many there are.
        numbers: in the tables of an image.
    """
    together = images_at_once(numbers)
    for start in range(0, images, together):
        yield slice(start, start + together)
