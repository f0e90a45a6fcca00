"""The sets of ablations that patches touch, against a count of pixels, one by one."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import Ablation, WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.ablations.touched import Touched
from smoothcert.workers.ablations.unions import reach
from tests.helpers.ablations import settings_of, shown_by_hand, touched_by_hand


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
