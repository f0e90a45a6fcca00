"""The sets of ablations that patches touch, against a count of pixels, one by one."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import Ablation, WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations import touched
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.ablations.touched import Choices, Pairs, Touched, Unions, reach
from tests.helpers.ablations import Pixels, settings_of, shown_by_hand


def touched_by_hand(shown: list[Pixels], height: int, width: int, patch: tuple[int, int]) -> set[frozenset[int]]:
    """For every place of the patch the ablations that show a pixel of it."""
    places = product(range(height - patch[0] + 1), range(width - patch[1] + 1))
    return {
        frozenset(
            position
            for position, pixels in enumerate(shown)
            if any((top + y, left + x) in pixels for y in range(patch[0]) for x in range(patch[1]))
        )
        for top, left in places
    }


def _sets(touched: Touched) -> list[frozenset[int]]:
    return [
        frozenset(np.flatnonzero(np.outer(vertical, horizontal)).tolist())
        for vertical in touched.vertical
        for horizontal in touched.horizontal
    ]


@settings(max_examples=300)
@given(settings_of(tuple(range(1, 10))), st.data())
def test_sets_are_those_that_patches_touch(setting: tuple[Ablation, int, int], data: st.DataObject) -> None:
    """The pairs of contacts are the sets that patches touch, pixel by pixel; D is the size of the largest.

    Without the contacts that others contain, the sets that no other contains are left, each once.
    """
    ablation, height, width = setting
    patch = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    geometry = Geometry.of(ablation, height, width)
    touched = Touched.everywhere(geometry, *patch)
    expected = touched_by_hand(shown_by_hand(*setting), height, width, patch)
    assert set(_sets(touched)) == expected
    assert Counter(_sets(touched.maximal())) == Counter(
        one for one in expected if not any(one < other for other in expected)
    )
    assert touched.most == max(len(one) for one in expected)


@pytest.mark.parametrize("patch", [(0, 1), (1, 0), (10, 1), (1, 8), (-1, 1)])
def test_a_patch_that_does_not_fit_is_refused(patch: tuple[int, int]) -> None:
    """A patch without pixels, or larger than the image, is a RequestError."""
    with pytest.raises(RequestError, match="must be 1 x 1 to 9 x 7"):
        reach(Geometry.of(WindowAblation(kind="column", size=2), 9, 7), Threat(*patch))


def test_formula_for_the_touched_is_wrong() -> None:
    """On 224 pixels with b = 19, D is 6 at stride 10 and m = 32, and 18 of 60 settings differ from the formula."""
    settings = list(product(range(1, 21), (23, 32, 39)))
    touched = {
        (stride, m): Touched.everywhere(
            Geometry.of(WindowAblation(kind="column", size=19, stride=stride), 224, 224), m, m
        ).most
        for stride, m in settings
    }
    assert touched[10, 32] == 6
    assert len(settings) == 60
    assert sum(touched[stride, m] != -(-(m + 19 - 1) // stride) for stride, m in settings) == 18


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
        patched.setattr(touched, "MAX_LISTED", 0)
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
        patch.setattr(touched, "_SHORT_LIST", 0)
        found = Unions(one, patches).heaviest(weights)
    assert found.sums.tolist() == sums.max(axis=1).tolist() == sums[np.arange(30), found.sets].tolist()


@pytest.mark.parametrize(("number", "chosen"), [(1, 1), (5, 1), (5, 2), (6, 3), (7, 6), (7, 7), (28, 3)])
def test_choices_are_numbered_in_lexicographic_order(number: int, chosen: int) -> None:
    """Numbers to members and back, in any order; if one is there twice, another completes them."""
    choices, expected = Choices(number, chosen), np.array([*combinations(range(number), chosen)])
    members = choices.members(np.arange(len(choices)))
    assert members.tolist() == expected.tolist()
    assert choices.holding(members[:, ::-1]).tolist() == [*range(len(choices))]
    things = members.copy()
    things[:, -1] = things[:, 0]
    completed = choices.members(choices.holding(things))
    assert all({*some} <= {*found} for some, found in zip(things.tolist(), completed.tolist(), strict=True))


def test_sets_that_are_no_arcs_make_no_pairs() -> None:
    """Ablations that are not neighbours are never summed as if they were."""
    none, some = np.array([[True]]), np.array([[True, False, True, False], [False, True, False, True]])
    with pytest.raises(ValueError, match="not arcs"):
        Pairs.of(Touched(none, some, np.zeros(1, int), np.arange(2)))


@given(settings_of(sides=tuple(range(1, 7))), st.data())
@settings(max_examples=40)
def test_each_place_has_what_a_patch_there_touches(setting: tuple[Ablation, int, int], data: st.DataObject) -> None:
    """`everywhere` has one set a place, in row-major order; `touched_at` gives the same one by one."""
    _, height, width = setting
    patch = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    ablations, shown = ablations_of(*setting), shown_by_hand(*setting)
    places = list(product(range(height - patch[0] + 1), range(width - patch[1] + 1)))
    everywhere = ablations.everywhere(*patch)
    assert everywhere.places(np.arange(everywhere.num_sets)).tolist() == [[list(place)] for place in places]
    counts = everywhere.sums(np.eye(len(shown), dtype=np.float32)).T  # [places, ablations]: 1 where touched
    for place, (top, left) in enumerate(places):
        hit = frozenset(product(range(top, top + patch[0]), range(left, left + patch[1])))
        expected = [bool(pixels & hit) for pixels in shown]
        assert ablations.touched_at(*patch, top, left).tolist() == expected
        assert (counts[place] == expected).all()


@pytest.mark.parametrize("patch", [(0, 1), (7, 1), (1, 9)])
def test_a_patch_larger_than_the_image_has_no_places(patch: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match=r"must be 1 x 1 to 6 x 8, the image"):
        ablations_of(WindowAblation(kind="column", size=2), 6, 8).everywhere(*patch)
