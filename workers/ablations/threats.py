"""Threats, and what every kind of ablation says of one: the sets of ablations that it can touch.

An attacker's patch at one place touches the set of ablations that show one of its pixels. The attacker chooses these
votes freely and no other. Rules (certificates/rules.py) ask for sums over such a set of weights that are 0 or more.

Not covered: which sets they are. Each kind says that for itself; touched.py does for rows times columns.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Weights = NDArray[np.float32]


class Threat(NamedTuple):
    """The attacker's patches: as many as `patches`, of `height` x `width` pixels each, anywhere inside the image."""

    height: int
    width: int
    patches: int = 1


class Reach(Protocol):
    """The sets of ablations that a threat can touch. A set that lies within another may be left out.

    Attributes:
        is_bound: whether `sums` may be larger than what any place of the patches gives.
        num_sets: how many sums an image has.
        num_ablations: how many weights.
    """

    @property
    def is_bound(self) -> bool: ...
    @property
    def num_sets(self) -> int: ...
    @property
    def num_ablations(self) -> int: ...
    def sums(self, weights: Weights) -> Weights:
        """[images, sets]: for [images, ablations] weights of 0 or more, their sum over each set."""

    def places(self, sets: Ints) -> Ints:
        """[n, patches, 2]: top and left pixel of patches that touch each of the n sets."""
