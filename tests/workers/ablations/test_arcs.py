"""The heaviest union of several arcs against a list of all unions."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.workers.ablations.arcs import Arcs
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.touched import Touched


@settings(max_examples=400)
@given(st.data(), st.integers(3, 14), st.integers(0, 2**32 - 1))
def test_the_heaviest_union_is_that_of_a_list_of_every_union(data: st.DataObject, side: int, seed: int) -> None:
    """Columns and rows, both edges, any stride, one arc to all of them; the arcs that are named make that union."""
    kind, edges = data.draw(st.sampled_from(["column", "row"])), data.draw(st.sampled_from(["wrap", "inside"]))
    size, stride = data.draw(st.integers(1, side)), data.draw(st.integers(1, 3) | st.integers(1, side))
    geometry = Geometry.of(WindowAblation(kind=kind, size=size, stride=stride, edges=edges), side, side)
    patch = (data.draw(st.integers(1, 3) | st.integers(1, side)),) * 2
    sets = Touched.everywhere(geometry, *patch).maximal().sets
    assume(len(sets) > 1)
    number = data.draw(st.integers(1, min(4, len(sets))) | st.integers(1, len(sets)))
    random = np.random.default_rng(seed)
    weights = (random.integers(0, 3, (20, sets.shape[1])) * (random.random((20, 1)) > 0.2)).astype(np.float32)
    weights[:10] *= random.random((10, sets.shape[1])) < 0.3  # gaps
    listed = np.array([sets[list(members)].any(axis=0) for members in combinations(range(len(sets)), number)])
    held = np.array([*combinations(range(len(sets)), number)])
    with_each = [(weights @ listed[(held == arc).any(axis=1)].T).max(axis=1).tolist() for arc in range(len(sets))]
    assert Arcs.of(sets).heaviest_with_each(weights, number).T.tolist() == with_each
    found = Arcs.of(sets).heaviest(weights, number)
    assert found.sums.tolist() == (weights @ listed.T).max(axis=1).tolist()
    assert found.chosen.shape == (20, number)
    assert found.sums.tolist() == (weights * sets[found.chosen].any(axis=1)).sum(axis=1).tolist()


def test_arcs_that_wrap_around_are_counted_once() -> None:
    """Three arcs of 3 on a circle of 8 hold all of it; two hold 6."""
    offsets = np.arange(8)
    arcs = Arcs.of((offsets - offsets[:, None]) % 8 < 3)
    assert [arcs.heaviest(np.ones((1, 8), np.float32), number).sums.tolist() for number in (1, 2, 3, 8)] == [
        [3],
        [6],
        [8],
        [8],
    ]


def test_sets_that_are_no_arcs_are_refused() -> None:
    """Ablations that are not neighbours are never summed as if they were."""
    with pytest.raises(ValueError, match="not arcs in order"):
        Arcs.of(np.array([[True, False, True, False], [False, True, False, True]]))
