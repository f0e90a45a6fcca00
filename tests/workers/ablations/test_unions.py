"""Sets that several patches touch together, against those found pixel by pixel and against lists of all unions."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import Ablation, WindowAblation
from smoothcert.workers.ablations import unions
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.ablations.touched import Touched
from smoothcert.workers.ablations.unions import Pairs, Unions, reach
from tests.helpers.ablations import settings_of, shown_by_hand, touched_by_hand


@settings(max_examples=100)
@given(settings_of(tuple(range(1, 6))), st.data())
def test_sums_are_over_the_unions_that_several_patches_touch(
    setting: tuple[Ablation, int, int], data: st.DataObject
) -> None:
    """The largest sum over two patches is that over all pairs of places, and the set that is named has it; a bound is
    never below it.
    """
    _, height, width = setting
    patch = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    one = touched_by_hand(shown_by_hand(*setting), height, width, patch)
    weights = np.random.default_rng(0).integers(0, 3, (4, Geometry.of(*setting).num_ablations)).astype(np.float32)
    expected = np.max([weights[:, list(a | b)].sum(axis=1) for a in one for b in one], axis=0)
    listed = reach(Geometry.of(*setting), Threat(*patch, patches=2))
    assert not listed.is_bound
    sums, found = listed.sums(weights), listed.heaviest(weights)
    assert sums.max(axis=1).tolist() == found.sums.tolist() == expected.tolist()
    assert sums[np.arange(4), found.sets].tolist() == expected.tolist()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(unions, "MAX_EXACT", 0)
        bound = reach(Geometry.of(*setting), Threat(*patch, patches=2))
    assert (bound.sums(weights).max(axis=1) >= expected).all()
    assert (bound.heaviest(weights).sums >= expected).all()


@settings(max_examples=300)
@given(st.data(), st.integers(3, 24), st.integers(0, 2**32 - 1))
def test_each_pair_of_arcs_has_the_sum_of_its_union(data: st.DataObject, side: int, seed: int) -> None:
    """Two patches on one axis: the sum over each union, and the heaviest, are those of a list of all unions."""
    kind, edges = data.draw(st.sampled_from(["column", "row"])), data.draw(st.sampled_from(["wrap", "inside"]))
    size, stride = data.draw(st.integers(1, side)), data.draw(st.integers(1, 3) | st.integers(1, side))
    geometry = Geometry.of(WindowAblation(kind=kind, size=size, stride=stride, edges=edges), side, side)
    patch = (data.draw(st.integers(1, 3) | st.integers(1, side)),) * 2
    one = Touched.everywhere(geometry, *patch).maximal()
    assume(one.num_sets > 1)
    pairs, listed = Pairs.of(one), Unions(one, 2)
    random = np.random.default_rng(seed)
    weights = random.integers(0, 3, (20, geometry.num_ablations)) * (random.random((20, 1)) > 0.2)
    sums = listed.sums(weights.astype(np.float32))
    assert pairs.sums(weights.astype(np.float32)).tolist() == sums.tolist()
    sets = np.arange(pairs.num_sets)
    assert pairs.places(sets).tolist() == listed.places(sets).tolist()
    assert pairs.unions(sets).tolist() == (listed.ablations > 0).tolist()
    held = pairs.choices.members(sets)
    with_each = [sums[:, (held == arc).any(axis=1)].max(axis=1).tolist() for arc in range(one.num_sets)]
    assert pairs.sums_with_each(weights.astype(np.float32)).T.tolist() == with_each
    found = pairs.heaviest(weights.astype(np.float32))
    assert found.sums.tolist() == sums.max(axis=1).tolist() == sums[np.arange(20), found.sets].tolist()


@settings(max_examples=60)
@given(st.integers(3, 8), st.sampled_from(["wrap", "inside"]), st.integers(1, 3), st.integers(2, 3), st.integers(0, 99))
def test_the_heaviest_union_of_blocks_needs_no_list(
    side: int, edges: str, stride: int, patches: int, seed: int
) -> None:
    """A search names a union that weighs as much as the heaviest one of a list."""
    ablation = WindowAblation(kind="block", size=2, stride=stride, edges=edges)
    one = Touched.everywhere(Geometry.of(ablation, side, side), 1, 2).maximal()
    assume(patches <= one.num_sets <= 36)
    random = np.random.default_rng(seed)
    weights = (random.integers(0, 3, (30, one.num_ablations)) * (random.random((30, 1)) > 0.2)).astype(np.float32)
    sums = Unions(one, patches).sums(weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unions, "_SHORT_LIST", 0)
        found = Unions(one, patches).heaviest(weights)
    assert found.sums.tolist() == sums.max(axis=1).tolist() == sums[np.arange(30), found.sets].tolist()


def test_sets_that_are_no_arcs_make_no_pairs() -> None:
    """Ablations that are not neighbours are never summed as if they were."""
    none, some = np.array([[True]]), np.array([[True, False, True, False], [False, True, False, True]])
    with pytest.raises(ValueError, match="not arcs"):
        Pairs.of(Touched(none, some, np.zeros(1, int), np.arange(2)))
