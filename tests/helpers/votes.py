"""Votes near the edge of being certified, and the sets of them that patches touch, counted pixel by pixel."""

from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import Self

import numpy as np
from hypothesis import strategies as st

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import Ballots, Rule, exact_rule
from tests.helpers.ablations import ListedSets

Places = dict[tuple[tuple[int, int], ...], frozenset[int]]
TABLES = 8
"""Of votes, an example."""


@st.composite
def geometries(draw: st.DrawFn, longest: int = 8, largest: int = 4) -> RowsTimesColumns:
    """Any ablation on an image of at most `longest` pixels a side."""
    a_side = st.integers(min(5, longest), longest) | st.integers(1, longest)
    height, width = draw(a_side), draw(a_side)
    kind = draw(st.sampled_from(["column", "row", "block"]))
    side = {"column": width, "row": height, "block": min(height, width)}[kind]
    size = draw(st.integers(1, min(side, largest)))
    stride = min(draw(st.integers(1, 3) | st.integers(1, longest)), side)
    edges = draw(st.sampled_from(["wrap", "inside"]))
    return RowsTimesColumns.of(WindowAblation(kind=kind, size=size, stride=stride, edges=edges), height, width)


@st.composite
def threats(draw: st.DrawFn, geometry: RowsTimesColumns, patches: int = 2) -> Threat:
    """Patches that fit the image, small ones more often."""
    side = st.integers(1, 3) | st.integers(1, 8)
    return Threat(min(draw(side), geometry.height), min(draw(side), geometry.width), draw(st.integers(1, patches)))


def ballots_near_the_edge(
    geometry: RowsTimesColumns,
    threat: Threat,
    classes: int,
    seed: int,
    rule: Rule = exact_rule,
    tables: int = TABLES,
) -> Ballots:
    """Votes of which the rule certifies many narrowly, and many narrowly not; half of them with fragile votes."""
    random = np.random.default_rng(seed)
    shape = (8 * tables, geometry.num_ablations)
    leader = random.integers(0, classes, (shape[0], 1))
    votes = np.where(random.random(shape) < random.random((shape[0], 1)), leader, random.integers(0, classes, shape))
    fragile = random.random(shape) < 0.1 if seed % 2 else None
    labels = np.where(random.random(len(votes)) < 0.5, leader[:, 0], random.integers(-1, classes, len(votes)))
    ballots = Ballots.of(votes, classes=classes, fragile=fragile, labels=labels)
    slack = rule(ballots, geometry, threat).slack
    held, broken = np.flatnonzero(slack >= 0), np.flatnonzero(slack < 0)
    nearest = [held[slack[held].argsort()][: tables // 2], broken[slack[broken].argsort()[::-1]][: tables // 2]]
    chosen = np.concatenate(nearest)
    return ballots.of_images(np.concatenate([chosen, random.integers(0, shape[0], tables - len(chosen))]))


def touched_by_hand(geometry: Geometry, threat: Threat) -> Places:
    """For every place of the patches the ablations that show a pixel of them."""
    shown = np.array([np.outer(rows, columns) for rows in geometry.rows for columns in geometry.columns])
    places = product(range(geometry.height - threat.height + 1), range(geometry.width - threat.width + 1))
    one = {
        (y, x): frozenset(
            np.flatnonzero(shown[:, y : y + threat.height, x : x + threat.width].any(axis=(1, 2))).tolist()
        )
        for y, x in places
    }
    return {
        several: frozenset().union(*(one[place] for place in several))
        for several in combinations_with_replacement(one, threat.patches)
    }


def needs_a_bound(geometry: RowsTimesColumns, threat: Threat) -> bool:
    """Whether several patches are answered by a bound if no union may be listed."""
    sets = set(touched_by_hand(geometry, threat._replace(patches=1)).values())
    largest = [one for one in sets if not any(one < other for other in sets)]
    patches = min(threat.patches, len(largest))  # once each set has a patch, another adds nothing
    return patches > 2 or (patches == 2 and 1 not in geometry.grid)


@dataclass(frozen=True)
class EveryUnion:
    """Ablations as rules know them, with one threat: the union of touched sets at every choice of places, listed."""

    listed: ListedSets

    @classmethod
    def of(cls, geometry: RowsTimesColumns, threat: Threat) -> Self:
        one = np.unique(
            [
                geometry.touched_at(threat.height, threat.width, top, left)
                for top in range(geometry.height - threat.height + 1)
                for left in range(geometry.width - threat.width + 1)
            ],
            axis=0,
        )
        chosen = np.array([*combinations_with_replacement(range(len(one)), threat.patches)])
        unions = np.unique(one[chosen].any(axis=1), axis=0)
        return cls(ListedSets(unions, np.zeros((len(unions), 2), np.int64)))

    @property
    def num_ablations(self) -> int:
        return self.listed.num_ablations

    def reach(self, threat: Threat) -> ListedSets:
        return self.listed


def correlated_votes(geometry: RowsTimesColumns, classes: int, seed: int, images: int = 12) -> Ballots:
    """Votes of which neighbours often agree; half of them with fragile votes, some images without a label."""
    random = np.random.default_rng(seed)
    shape = (images, geometry.num_ablations)
    leader = random.integers(0, classes, (images, 1))
    votes = np.where(random.random(shape) < random.random((images, 1)), leader, random.integers(0, classes, shape))
    new = random.random(shape) < random.choice([1, 0.5, 0.2])
    votes = np.take_along_axis(votes, np.maximum.accumulate(np.where(new, np.arange(shape[1]), 0), axis=1), axis=1)
    fragile = random.random(shape) < 0.1 if seed % 2 else None
    labels = np.where(random.random(images) < 0.6, leader[:, 0], random.integers(-1, classes, images))
    return Ballots.of(votes, classes=classes, fragile=fragile, labels=labels)
