"""Mask positions, unions and covering sets against lists of pixels."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.pipeline.verify.masks import Masks, Rectangle, _made_for, members, positions, smallest

SIDES = [(224, 23), (224, 32), (224, 39), (32, 2), (32, 4), (32, 5), (32, 8)]
"""Images and patches of the published experiments."""


def square(patch_px: int, per_axis: int, side: int, patches: int = 1) -> Masks:
    return Masks((patch_px, patch_px), per_axis, patches, False, side)


def pixels_of(rectangle: Rectangle) -> set[tuple[int, int]]:
    top, left, height, width = rectangle
    return set(product(range(top, top + height), range(left, left + width)))


def places(side: int, height: int, width: int) -> list[set[tuple[int, int]]]:
    """The pixels of a patch at each place."""
    corners = product(range(side - height + 1), range(side - width + 1))
    return [pixels_of(Rectangle(top, left, height, width)) for top, left in corners]


@pytest.mark.parametrize(
    ("side", "patch_px", "per_axis", "begin", "length"),
    [
        (224, 32, 6, [0, 33, 66, 99, 132, 160], 64),
        (224, 32, 3, [0, 65, 128], 96),
        (32, 8, 6, [0, 5, 10, 15, 20], 12),  # k is an upper bound
        (224, 32, 1, [0], 224),
        (224, 224, 3, [0], 224),  # the patch leaves no choice
        (10, 1, 20, list(range(10)), 1),  # more positions than pixels
    ],
)
def test_positions_are_the_published_ones(
    side: int, patch_px: int, per_axis: int, begin: list[int], length: int
) -> None:
    """Along one axis, of PatchCleanser's mask sets."""
    assert positions(side, patch_px, per_axis) == (begin, length)


@pytest.mark.parametrize(("side", "patch_px"), SIDES)
@pytest.mark.parametrize("per_axis", range(2, 7))
def test_every_place_of_the_patch_lies_in_a_mask(side: int, patch_px: int, per_axis: int) -> None:
    """
    R-covering along one axis, with no more positions than were asked for, no pixel outside, no mask without use.
    Oracle: each place, one by one.
    """
    begin, length = positions(side, patch_px, per_axis)
    holders = [
        [number for number, first in enumerate(begin) if first <= place and place + patch_px <= first + length]
        for place in range(side - patch_px + 1)
    ]
    assert all(holders)
    assert {number for each in holders if len(each) == 1 for number in each} == set(range(len(begin)))
    assert begin[0] == 0 < len(begin) <= per_axis
    assert begin[-1] + length == side
    masks = square(patch_px, per_axis, side)
    assert [mask[:2] for mask in masks.base] == list(product(begin, repeat=2))
    n = len(begin) ** 2
    assert masks.num_ablations == n * (n + 1) // 2
    assert not masks.hides_everything


@pytest.mark.parametrize(("per_axis", "votes"), [(2, 10), (3, 45), (4, 136), (5, 325), (6, 666)])
def test_votes_are_masks_then_pairs(per_axis: int, votes: int) -> None:
    """Singles, then (0, 1), (0, 2), ..., (n - 2, n - 1); the published numbers."""
    masks = square(32, per_axis, 224)
    singles = [(number,) for number in range(per_axis**2)]
    assert list(members(masks)) == singles + list(combinations(range(per_axis**2), 2))
    assert masks.num_ablations == votes == len(members(masks))
    assert masks.num_masks == per_axis**2


@pytest.mark.parametrize(("per_axis", "masks", "votes"), [(3, 45, 255), (5, 325, 15_275)])
def test_two_patches_have_votes_of_up_to_four_masks(per_axis: int, masks: int, votes: int) -> None:
    """The published numbers."""
    both = square(32, per_axis, 224, patches=2)
    assert (both.num_masks, both.num_ablations) == (masks, votes)


def test_a_rectangle_has_a_stride_of_its_own_on_each_axis() -> None:
    """Row by row, the higher ones first."""
    masks = Masks((16, 48), 3, 1, False, 224)
    tops, lefts = positions(224, 16, 3), positions(224, 48, 3)
    assert masks.base == tuple(Rectangle(top, left, tops[1], lefts[1]) for top in tops[0] for left in lefts[0])


def test_an_area_has_the_masks_of_some_rectangles() -> None:
    """Of 1 % of an image; a mask that two of them have comes once."""
    masks = Masks(501, 3, 1, False, 224)
    rectangles = [(4, 224), (10, 100), (22, 45), (47, 21), (100, 10), (224, 4)]
    assert _made_for(masks) == rectangles
    lists = [Masks(rectangle, 3, 1, False, 224).base for rectangle in rectangles]
    assert list(masks.base) == [mask for each in lists for mask in each]
    twice = Masks(1, 2, 1, False, 3)
    assert len(twice.base) == len(set(twice.base))


@pytest.mark.parametrize(("pixels", "per_axis"), [(501, 3), (501, 6), (2000, 4)])
def test_the_masks_of_an_area_hide_every_rectangle_of_so_many_pixels(pixels: int, per_axis: int) -> None:
    """
    At every place, of every height; and a union of two hides less than the image.
    Oracle: a rectangle lies in a mask if it lies in its rows and in its columns.
    """
    side = 224
    masks = Masks(pixels, per_axis, 1, False, side)
    for height in range(1, side + 1):
        width = min(side, pixels // height)
        tops, lefts = np.arange(side - height + 1), np.arange(side - width + 1)
        hidden = np.zeros((len(tops), len(lefts)), bool)
        for top, left, mask_height, mask_width in masks.base:
            in_rows = (top <= tops) & (tops + height <= top + mask_height)
            in_columns = (left <= lefts) & (lefts + width <= left + mask_width)
            hidden |= np.outer(in_rows, in_columns)
        assert hidden.all(), height
    assert not masks.hides_everything


@st.composite
def small_masks(draw: st.DrawFn, most_masks: int = 9) -> Masks:
    """Masks of at most 7 x 7 pixels, against one or two patches, squares, rectangles and areas."""
    side, patches = draw(st.integers(2, 7)), draw(st.integers(1, 2))
    length = st.integers(1, side)
    threat = draw(st.tuples(length, length) if patches == 2 else st.tuples(length, length) | st.integers(1, side**2))
    masks = Masks(threat, draw(st.integers(1, 3)), patches, draw(st.booleans()), side)
    return masks if len(masks.base) <= most_masks else Masks((side, 1), 2, patches, False, side)


def literal_members(masks: Masks) -> list[frozenset[int]]:
    """The base masks of each vote: of one mask, then of two, ..."""
    sizes = range(1, 2 * masks.patches + 1)
    return [frozenset(vote) for size in sizes for vote in combinations(range(len(masks.base)), size)]


def literal_patches(masks: Masks) -> list[tuple[int, int]]:
    """Height and width of every patch of the threat."""
    if isinstance(masks.threat, tuple):
        return [masks.threat]
    lengths = range(1, masks.side + 1)
    return [(height, width) for height, width in product(lengths, repeat=2) if height * width <= masks.threat]


def literal_covering(masks: Masks) -> set[frozenset[int]]:
    """The masks that hide all patches, for all places of all patches."""
    alone = literal_members(masks)[: masks.num_masks]
    hidden = [set().union(*(pixels_of(masks.base[each]) for each in vote)) for vote in alone]
    sets = set()
    for patch in literal_patches(masks):
        for patches in product(places(masks.side, *patch), repeat=masks.patches):
            shown = set().union(*patches)
            sets.add(frozenset(number for number, pixels in enumerate(hidden) if shown <= pixels))
    return sets


@given(small_masks())
def test_covering_sets_are_those_of_the_pixels(masks: Masks) -> None:
    """
    The inclusion-minimal sets, for one and two patches, and every rectangle of an area.
    Oracle: every pixel of every mask and of every patch, at every place.
    """
    sets = literal_covering(masks)
    found = {frozenset(np.flatnonzero(each).tolist()) for each in masks.covering}
    assert found == {one for one in sets if not any(other < one for other in sets)}
    assert len(found) == len(masks.covering)


@given(small_masks())
def test_a_union_hides_what_both_masks_hide(masks: Masks) -> None:
    """Also of masks that are unions themselves; a mask with itself is its own vote."""
    votes = literal_members(masks)
    assert masks.num_ablations == len(votes)
    for one, other in product(range(masks.num_masks), repeat=2):
        assert votes[masks.unions[one, other]] == votes[one] | votes[other]


@given(small_masks())
def test_a_vote_on_nothing_is_noticed(masks: Masks) -> None:
    """Oracle: every pixel of every vote."""
    unions = [set().union(*(pixels_of(masks.base[each]) for each in vote)) for vote in literal_members(masks)]
    assert masks.hides_everything == any(len(pixels) == masks.side**2 for pixels in unions)


def test_a_set_that_contains_another_decides_nothing() -> None:
    """Of three sets, one contains another."""
    sets = {bytes(each) for each in ([1, 1, 0], [1, 0, 0], [0, 1, 1])}
    assert smallest(sets).tolist() == [[False, True, True], [True, False, False]]
