"""Votes near the edge of being certified, and the sets of them that patches touch, counted pixel by pixel."""

from itertools import combinations_with_replacement, product

import numpy as np
from hypothesis import strategies as st

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import Ballots, Rule, exact_rule

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
