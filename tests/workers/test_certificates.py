"""Both rules against an attacker that tries everything, and examples counted by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from manifests.errors import RequestError
from manifests.job import Ablation
from workers.certificates import (
    Certificates,
    certify,
    count_votes,
    is_certified,
    largest_certified_square,
    largest_margin_certified_square,
)
from workers.geometry import Geometry

Votes = NDArray[np.int64]
TRIED = 5  # touched votes of which every assignment is tried


@st.composite
def geometries(draw: st.DrawFn, longest: int = 6) -> Geometry:
    """Any ablation on an image of at most `longest` pixels a side."""
    height, width = draw(st.integers(1, longest)), draw(st.integers(1, longest))
    kind = draw(st.sampled_from(["column", "row", "block"]))
    side = {"column": width, "row": height, "block": min(height, width)}[kind]
    size, stride = draw(st.integers(1, side)), draw(st.integers(1, side))
    edges = draw(st.sampled_from(["wrap", "inside"]))
    return Geometry.of(Ablation(kind=kind, size=size, stride=stride, edges=edges), height, width)


@st.composite
def voted(draw: st.DrawFn, longest: int = 6) -> tuple[Geometry, Votes, int]:
    """A geometry, the votes of one image, and the number of classes; mostly one class leads clearly."""
    geometry, classes = draw(geometries(longest)), draw(st.integers(2, 3))
    leader = draw(st.integers(0, classes - 1))
    vote = st.just(leader) | st.just(leader) | st.integers(0, classes - 1)
    votes = draw(st.lists(vote, min_size=geometry.num_ablations, max_size=geometry.num_ablations))
    return geometry, np.array([votes]), classes


def touched_by_hand(geometry: Geometry, patch: tuple[int, int]) -> set[tuple[int, ...]]:
    """For every place of the patch the positions of the ablations that show a pixel of it."""
    shown = np.array([np.outer(rows, columns) for rows in geometry.rows for columns in geometry.columns])
    places = product(range(geometry.height - patch[0] + 1), range(geometry.width - patch[1] + 1))
    return {
        tuple(np.flatnonzero(shown[:, y : y + patch[0], x : x + patch[1]].any(axis=(1, 2))).tolist()) for y, x in places
    }


def _columns(certificates: Certificates) -> dict[str, list[int]]:
    return {name: values.tolist() for name, values in vars(certificates).items()}


def predicted(votes: list[int], classes: int) -> int:
    """Most votes, the lowest class on a tie."""
    return max(range(classes), key=lambda label: (votes.count(label), -label))


def attacker_wins(votes: list[int], touched: tuple[int, ...], classes: int) -> bool:
    """Whether some assignment of the touched votes changes the prediction; all are tried."""
    assignments = np.array(list(product(range(classes), repeat=len(touched))), int)
    attacked = np.tile(votes, (len(assignments), 1))
    attacked[:, list(touched)] = assignments
    counts = (attacked[:, :, None] == np.arange(classes)).sum(axis=1)
    return bool((counts.argmax(axis=1) != predicted(votes, classes)).any())  # argmax takes the lowest on a tie


@settings(max_examples=3000, deadline=None)
@given(voted(), st.data())
def test_exact_rule_is_what_an_attacker_can_do(case: tuple[Geometry, Votes, int], data: st.DataObject) -> None:
    """A patch is certified iff no assignment of the votes that it touches, at any place, changes the prediction."""
    geometry, votes, classes = case
    patch = data.draw(st.integers(1, geometry.height)), data.draw(st.integers(1, geometry.width))
    places = touched_by_hand(geometry, patch)
    assume(max(len(touched) for touched in places) <= TRIED)
    broken = any(attacker_wins(votes[0].tolist(), touched, classes) for touched in places)
    certified = is_certified(votes, count_votes(votes, classes=classes), geometry, *patch)
    assert certified.tolist() == [not broken]


@settings(max_examples=400, deadline=None)
@given(voted(longest=9))
def test_largest_squares_are_those_of_a_linear_search(case: tuple[Geometry, Votes, int]) -> None:
    """The largest squares of both rules are what trying each side in turn finds, and margin never exceeds exact."""
    geometry, votes, classes = case
    tally = count_votes(votes, classes=classes)
    counts = [votes[0].tolist().count(label) for label in range(classes)]
    winner = predicted(votes[0].tolist(), classes)
    lead = min(counts[winner] - counts[rival] - (rival < winner) for rival in range(classes) if rival != winner)
    sides = range(1, min(geometry.height, geometry.width) + 1)
    exact = [side for side in sides if is_certified(votes, tally, geometry, side, side)[0]]
    margin = [side for side in sides if lead >= 2 * geometry.max_touched(side, side)]
    assert exact == list(range(1, len(exact) + 1))
    assert set(margin) <= set(exact)
    assert largest_certified_square(votes, tally, geometry).tolist() == [len(exact)]
    assert largest_margin_certified_square(tally, geometry).tolist() == [len(margin)]


@settings(max_examples=150, deadline=None)
@given(voted(longest=8))
def test_larger_patches_are_harder(case: tuple[Geometry, Votes, int]) -> None:
    """What is certified for a patch is certified for every patch that fits into it."""
    geometry, votes, classes = case
    tally = count_votes(votes, classes=classes)
    held = {
        (h, w): bool(is_certified(votes, tally, geometry, h, w)[0])
        for h, w in product(range(1, geometry.height + 1), range(1, geometry.width + 1))
    }
    assert all(held.get((h - 1, w), True) and held.get((h, w - 1), True) for (h, w), holds in held.items() if holds)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 6), st.lists(st.lists(st.integers(0, 5), min_size=7, max_size=7), min_size=1, max_size=5))
def test_tally(classes: int, rows: list[list[int]]) -> None:
    """Classes with votes come by count, then by index; after them the lowest class without votes, if there is one."""
    votes = np.array(rows) % classes
    tally = count_votes(votes, classes=classes)
    for row, own_classes, own_counts in zip(votes.tolist(), tally.classes, tally.counts, strict=True):
        ranked = sorted(set(row), key=lambda label: (-row.count(label), label))
        ranked += [label for label in range(classes) if label not in row][:1]
        assert own_classes.tolist() == ranked + [-1] * (len(own_classes) - len(ranked))
        assert own_counts.tolist() == [row.count(label) for label in own_classes.tolist()]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_images_do_not_matter_to_each_other(data: st.DataObject) -> None:
    """Certificates of many images at once, more than are worked on together, are those of each image alone."""
    geometry = Geometry.of(Ablation(kind="column", size=2), 7, 7)
    seed = data.draw(st.integers(0, 2**32 - 1))
    votes = (np.random.default_rng(seed).random((300, 7)) ** 3 * 4).astype(np.int64)
    together = certify(votes, geometry, classes=5)
    for one in data.draw(st.lists(st.integers(0, 299), min_size=1, max_size=3)):
        alone = certify(votes[one : one + 1], geometry, classes=5)
        assert _columns(alone) == {name: values[one : one + 1] for name, values in _columns(together).items()}


# A pixel is touched by 2 of the 10 columns of 2 pixels.
BY_HAND = [
    ([0] * 10, 2, True),  # nobody else has votes
    ([0] * 7 + [1] * 3, 2, True),  # 7:3 becomes 5:5 at worst, and class 0 wins the tie
    ([1] * 7 + [0] * 3, 2, False),  # 7:3 becomes 5:5, and class 0 wins the tie
    ([1] * 7 + [0] * 3, 3, False),  # the same with a class that nobody votes for
    ([1] * 7 + [2] * 3, 3, True),  # class 0 gets 2, class 2 gets 5, and class 1 wins the tie
    ([0] * 6 + [1] * 4, 2, False),  # 6:4 becomes 4:6
    ([0, 1, 0, 1, 0, 1, 0, 1, 0, 0], 2, False),  # 6:4 becomes 4:6 where the neighbours 8 and 9 are touched
    ([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], 2, False),  # a tie, which class 0 wins until it loses a vote
    ([0, 1, 0, 1, 0, 1, 0, 1, 0, 2], 3, False),  # 5:4 becomes 4:5
    ([0, 0, 1, 0, 0, 1, 0, 0, 1, 1], 2, False),  # 6:4 becomes 4:6
    ([0, 1, 0, 0, 1, 0, 0, 1, 0, 0], 2, True),  # 7:3 becomes 5:5 at worst, and class 0 wins the tie
]


@pytest.mark.parametrize(("votes", "classes", "certified"), BY_HAND)
def test_by_hand(votes: list[int], classes: int, certified: bool) -> None:
    """Leads and ties counted by hand on 10 columns of 2 pixels, under a patch of 1 pixel."""
    geometry = Geometry.of(Ablation(kind="column", size=2), 10, 10)
    tally = count_votes(np.array([votes]), classes=classes)
    assert is_certified(np.array([votes]), tally, geometry, 1, 1).tolist() == [certified]


def test_classes_without_votes_are_rivals() -> None:
    """Three votes for class 1: another class of none needs two of them, and class 0 also wins the tie that it makes."""
    geometry = Geometry.of(Ablation(kind="column", size=1), 4, 4)
    votes = np.array([[1, 1, 1, 1]])
    held = [
        bool(is_certified(votes, count_votes(votes, classes=classes), geometry, 1, width)[0])
        for classes in (2, 9)
        for width in (1, 2, 3)
    ]
    assert held == [True, False, False] * 2
    zeros = np.zeros_like(votes)
    held = [bool(is_certified(zeros, count_votes(zeros, classes=2), geometry, 1, width)[0]) for width in (1, 2, 3)]
    assert held == [True, True, False]  # the tie of 2 against 2 stays with class 0


def test_runner_up_of_a_unanimous_image() -> None:
    """Where all votes agree, the runner-up is the lowest other class, with no votes."""
    geometry = Geometry.of(Ablation(kind="column", size=1), 4, 4)
    found = certify(np.array([[0] * 4, [2] * 4]), geometry, classes=3)
    assert found.prediction.tolist() == [0, 2]
    assert found.runner_up.tolist() == [1, 0]
    assert found.runner_up_count.tolist() == [0, 0]


def test_tie_goes_to_the_lowest_class() -> None:
    """With equal counts the lowest class is the prediction and the next the runner-up."""
    tally = count_votes(np.array([[2, 1, 2, 1, 0]]), classes=3)
    assert tally.prediction.tolist() == [1]
    assert tally.classes[0, :3].tolist() == [1, 2, 0]
    assert tally.leads[0, :3].tolist() == [0, 0, 0]  # class 0 wins the tie that two votes more for it make


def test_planted_17_against_6() -> None:
    """Where a formula says that 5 ablations are touched, 6 are; 17 votes against 6 then fall to a 32-pixel patch."""
    geometry = Geometry.of(Ablation(kind="column", size=19, stride=10), 224, 224)
    votes = np.zeros((1, 23), np.int64)
    votes[0, 8:14] = 1
    tally = count_votes(votes, classes=2)
    assert (geometry.num_ablations, geometry.max_touched(32, 32)) == (23, 6)
    assert tally.leads[0, 1] == 11
    assert 2 * 5 <= 11 < 2 * 6
    assert largest_margin_certified_square(tally, geometry)[0] < 32
    assert not is_certified(votes, tally, geometry, 32, 32)[0]
    strip = Geometry.of(Ablation(kind="column", size=19, stride=10), 1, 224)
    assert any(attacker_wins(votes[0].tolist(), touched, 2) for touched in touched_by_hand(strip, (1, 32)))


def test_patch_larger_than_the_image_is_refused() -> None:
    """A patch that does not fit into the image is a RequestError, not a certificate."""
    votes = np.zeros((1, 4), np.int64)
    with pytest.raises(RequestError, match="patch 5 x 1"):
        is_certified(votes, count_votes(votes, classes=2), Geometry.of(Ablation(kind="column", size=1), 4, 4), 5, 1)


@pytest.mark.parametrize("votes", [[[0, 1, 2, 0]], [[0, -1, 0, 0]]])
def test_votes_for_no_class_are_refused(votes: list[list[int]]) -> None:
    """A vote outside the classes is a defect, never counted."""
    with pytest.raises(ValueError, match="do not fit 2 classes"):
        count_votes(np.array(votes), classes=2)


def test_votes_of_another_geometry_are_refused() -> None:
    """Votes that are not one an ablation are a defect, never certified."""
    votes = np.zeros((1, 5), np.int64)
    with pytest.raises(ValueError, match="do not fit 4 ablations"):
        certify(votes, Geometry.of(Ablation(kind="column", size=1), 4, 4), classes=2)


def test_no_images() -> None:
    """Of no images there are no certificates, and no error."""
    geometry = Geometry.of(Ablation(kind="column", size=1), 4, 4)
    found = _columns(certify(np.zeros((0, 4), np.int64), geometry, classes=2))
    assert list(found.values()) == [[]] * 6


def test_narrow_votes_are_counted_right() -> None:
    """Votes as 16-bit numbers, the type of the table, give the same certificates as wide ones."""
    geometry = Geometry.of(Ablation(kind="column", size=2), 8, 8)
    votes = np.random.default_rng(0).integers(0, 65536, (40, 8)) // 30000 * 30000
    wide = certify(votes, geometry, classes=65536)
    narrow = certify(votes.astype(np.uint16), geometry, classes=65536)
    assert _columns(narrow) == _columns(wide)
