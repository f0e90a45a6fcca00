"""Mask sets are those of the paper's code, hide every patch, and are counted from pixels."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.ablation import ablation_of
from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import MaskSet, mask_positions, rectangles_of_area
from smoothcert.workers.ablations.shown import Masks
from smoothcert.workers.ablations.threats import Threat


def _masks(height: int, width: int, **keys: object) -> MaskSet:
    masks = ablations_of(ablation_of({"kind": "mask", **keys}), height, width)
    assert isinstance(masks, MaskSet)
    return masks


def _by_hand(side: int, patch: int, per_axis: int) -> tuple[list[int], int]:
    """As the paper's code walks along an axis."""
    stride = (side - patch + 1 + per_axis - 1) // per_axis
    length = min(patch + stride - 1, side)
    found, at = [], 0
    while at < side - length + 1:
        found.append(at)
        at += stride
    if found[-1] != side - length:
        found.append(side - length)
    return found, length


@pytest.mark.parametrize(
    ("side", "patch", "per_axis"),
    [*product([224], [23, 32, 39], range(2, 7)), *product([32], [2, 4, 5, 8], range(2, 7))],
)
def test_positions_are_those_of_the_published_code(side: int, patch: int, per_axis: int) -> None:
    assert mask_positions(side, patch, per_axis) == _by_hand(side, patch, per_axis)


def test_positions_that_the_paper_gives() -> None:
    """On an axis of 224 against 32 pixels; and fewer than asked for on an axis of 32 against 8."""
    assert mask_positions(224, 32, 6) == ([0, 33, 66, 99, 132, 160], 64)
    assert mask_positions(224, 32, 3) == ([0, 65, 128], 96)
    assert len(mask_positions(32, 8, 6)[0]) == 5


@given(side=st.integers(2, 40), data=st.data(), per_axis=st.integers(2, 8))
def test_every_place_along_an_axis_lies_in_a_mask(side: int, data: st.DataObject, per_axis: int) -> None:
    patch = data.draw(st.integers(1, side))
    positions, length = mask_positions(side, patch, per_axis)
    assert len(positions) <= per_axis
    assert positions[-1] + length <= side
    for place in range(side - patch + 1):
        assert any(first <= place and place + patch <= first + length for first in positions)


@given(height=st.integers(2, 60), width=st.integers(2, 60), data=st.data())
def test_a_few_rectangles_hold_all_of_an_area(height: int, width: int, data: st.DataObject) -> None:
    pixels = data.draw(st.integers(1, height * width))
    found = rectangles_of_area(pixels, height, width)
    for tall in range(1, min(height, pixels) + 1):
        wide = min(width, pixels // tall)
        assert any(tall <= one and wide <= other for one, other in found)
    assert all(tall * wide <= max(2 * pixels, 1) for tall, wide in found)


def test_one_percent_of_224() -> None:
    """501 pixels, as the paper's appendix asks; its six rectangles are larger, up to 1,120 pixels."""
    assert rectangles_of_area(501, 224, 224) == [(4, 224), (10, 100), (22, 45), (47, 21), (100, 10), (224, 4)]


@pytest.mark.parametrize(
    ("keys", "masks", "votes"),
    [
        ({"threat": 32, "per_axis": 2}, 4, 10),
        ({"threat": 32, "per_axis": 3}, 9, 45),
        ({"threat": 32, "per_axis": 4}, 16, 136),
        ({"threat": 32, "per_axis": 5}, 25, 325),
        ({"threat": 32, "per_axis": 6}, 36, 666),
        ({"threat": 32, "per_axis": 3, "threat_patches": 2}, 45, 255),
        ({"threat": {"pixels": 501}, "per_axis": 3}, 42, 903),
    ],
)
def test_the_number_of_votes(keys: dict[str, object], masks: int, votes: int) -> None:
    """n (n + 1) / 2 of n masks; of two patches, all unions of up to four."""
    made = _masks(224, 224, **keys)
    assert (made.num_masks, made.num_ablations) == (masks, votes)


def test_votes_are_single_masks_then_pairs_in_row_major_order() -> None:
    """And `unions` finds the vote of two masks."""
    masks = _masks(6, 9, threat="2x3", per_axis=2)
    (tops, tall), (lefts, wide) = mask_positions(6, 2, 2), mask_positions(9, 3, 2)
    rectangles = []
    for top, left in product(tops, lefts):
        hidden = np.zeros((6, 9), bool)
        hidden[top : top + tall, left : left + wide] = True
        rectangles.append(hidden)
    pairs = list(combinations(range(4), 2))
    expected = [*rectangles, *(rectangles[one] | rectangles[other] for one, other in pairs)]
    assert (masks.visible(np.arange(10)) == ~np.stack(expected)).all()
    for one, other in product(range(4), range(4)):
        number = one if one == other else 4 + pairs.index((min(one, other), max(one, other)))
        assert masks.unions[one, other] == number


@pytest.mark.parametrize("keys", [{}, {"threat_patches": 2, "per_axis": 3}, {"threat": {"pixels": 6}}])
def test_unions_hide_what_both_masks_hide(keys: dict[str, object]) -> None:
    masks = _masks(16, 16, **{"threat": 3, "per_axis": 3} | keys)
    shown = masks.visible(np.arange(masks.num_ablations))
    for one, other in product(range(masks.num_masks), range(masks.num_masks)):
        assert (shown[masks.unions[one, other]] == (shown[one] & shown[other])).all()


@given(
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    threat=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    per_axis=st.integers(2, 4),
    patch=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_covers_are_counted_from_pixels(
    height: int, width: int, threat: tuple[int, int], per_axis: int, patch: tuple[int, int]
) -> None:
    """Every place has a set that holds one of those given; each of these belongs to its place; and an exposed place is
    an error.
    """
    try:
        masks = _masks(height, width, threat=f"{threat[0]}x{threat[1]}", per_axis=per_axis)
    except RequestError:  # masks hide everything together
        return
    shown = masks.visible(np.arange(masks.num_masks))
    hiding = {
        (top, left): ~shown[:, top : top + patch[0], left : left + patch[1]].any(axis=(1, 2))
        for top in range(height - patch[0] + 1)
        for left in range(width - patch[1] + 1)
    }
    if not all(each.any() for each in hiding.values()):
        with pytest.raises(RequestError, match="no mask hides it at"):
            masks.covers(Threat(*patch))
        return
    covers = masks.covers(Threat(*patch))
    for each in hiding.values():
        assert any((each | ~one).all() for one in covers.sets)
    for one, place in zip(covers.sets, covers.places, strict=True):
        assert (hiding[tuple(place[0].tolist())] == one).all()
    assert (np.stack([*hiding.values()]) == masks.hiding(*patch)).all()


def test_smaller_patches_are_hidden_and_some_larger_ones() -> None:
    """Two masks on each axis of 224 against 32 also hide every patch of 33, but none of 34."""
    masks = _masks(224, 224, threat=32, per_axis=2)
    masks.refuse(Threat(32, 7))
    masks.refuse(Threat(33, 33))
    with pytest.raises(RequestError, match=r"patch 34 x 34: no mask hides it at \(\d+, \d+\) .* made for 32 x 32"):
        masks.refuse(Threat(34, 34))
    with pytest.raises(RequestError, match="must be 1 x 1 to 224 x 224, the image"):
        masks.refuse(Threat(225, 1))


def test_two_patches_need_masks_for_two() -> None:
    """A union of two masks hides two patches wherever they are; a mask for one patch does not."""
    two = _masks(32, 32, threat=4, per_axis=3, threat_patches=2)
    covers = two.covers(Threat(4, 4, 2))
    shown = two.visible(np.arange(two.num_masks))
    for one, places in zip(covers.sets, covers.places, strict=True):
        hidden = np.stack([~shown[:, y : y + 4, x : x + 4].any(axis=(1, 2)) for y, x in places.tolist()])
        assert (hidden.all(axis=0) == one).all()
    two.refuse(Threat(4, 4))
    with pytest.raises(RequestError, match=r"2 patches of 4 x 4: no mask hides them at .* and .*made for 4 x 4"):
        _masks(32, 32, threat=4, per_axis=3).refuse(Threat(4, 4, 2))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"threat": 9, "per_axis": 3}, r"ablation\.threat: 9 x 9 is larger than the image, 8 x 8"),
        ({"threat": 8, "per_axis": 2}, r"ablation\.per_axis: 2 makes masks that hide the whole image"),
        ({"threat": "2x8", "per_axis": 2}, r"ablation\.per_axis: 2 makes masks that hide the whole image"),
        ({"threat": 2, "per_axis": 2, "threat_patches": 2}, r"hide the whole image, alone or together"),
    ],
)
def test_what_shows_nothing_is_refused(keys: dict[str, object], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        _masks(8, 8, **keys)


def test_too_many_votes_are_refused() -> None:
    with pytest.raises(RequestError, match=r"per_axis: 14 makes 196 masks and 19,306 votes an image; at most 16,384"):
        _masks(224, 224, threat=32, per_axis=14)


@pytest.mark.parametrize("times", [1, 2])
def test_tokens_pixels_and_touched_ablations_agree(times: int) -> None:
    """Upsampled or not, they follow from the pixels shown."""
    masks = _masks(12, 12, threat=3, per_axis=2)
    shown = masks.visible(np.arange(masks.num_ablations))
    large = masks.upsampled(times)
    listed = Masks(shown.repeat(times, axis=1).repeat(times, axis=2))
    assert (large.visible(np.arange(masks.num_ablations)) == listed.masks).all()
    assert (large.visible_tokens(4) == listed.visible_tokens(4)).all()
    assert (masks.touched_at(2, 5, 3, 4) == shown[:, 3:5, 4:9].any(axis=(1, 2))).all()
    assert masks.first_pixels()[1].tolist() == np.argwhere(~shown[1])[0].tolist()
    assert masks.coarser(1)[0] is masks
