"""Votes of double masking counted again give what the definitions give."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.ablation import Area, MaskAblation, ablation_of
from smoothcert.pipeline.verify import recount_masks as module
from smoothcert.pipeline.verify.masks import Masks
from smoothcert.pipeline.verify.recount_masks import ABSENT, missing, recount_masks
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.families import family_of
from tests.helpers.mask_runs import LiteralMasks, left_out
from tests.pipeline.verify.test_masks import literal_patches, pixels_of, places, small_masks

COLUMNS = ("prediction", "recovery_certified", "recovery_published", "detection_certified")


def literal(masks: Masks) -> LiteralMasks:
    """The same masks, pixel by pixel."""
    alone = [pixels for patch in literal_patches(masks) for pixels in places(masks.side, *patch)]
    together = alone if masks.patches == 1 else [one | other for one in alone for other in alone]
    return LiteralMasks([frozenset(pixels_of(mask)) for mask in masks.base], masks.patches, together)


@st.composite
def votes_of(draw: st.DrawFn, masks: Masks, classes: int) -> list[int]:
    """Votes of an image: one class with a few exceptions, or whole rows of another class, or anything."""
    count = masks.num_ablations
    votes = draw(
        st.one_of(
            st.integers(0, classes - 1).map(lambda label: [label] * count),
            st.lists(st.integers(0, classes - 1), min_size=count, max_size=count),
        )
    )
    for mask in draw(st.lists(st.integers(0, masks.num_masks - 1), max_size=3)):
        label = draw(st.integers(0, classes - 1))
        for vote in masks.unions[mask].tolist():
            votes[vote] = label
    for vote in draw(st.lists(st.integers(0, count - 1), max_size=3)):
        votes[vote] = draw(st.integers(0, classes - 1))
    return votes


@given(small_masks(most_masks=6), st.data())
def test_a_recount_is_what_the_definitions_say(masks: Masks, data: st.DataObject) -> None:
    """
    Of one and two patches, squares, rectangles and areas; with and without an early exit, however many images are
    counted at once.
    Oracle: the published algorithm, step by step, on lists of pixels.
    """
    classes, plain = data.draw(st.integers(2, 4)), literal(masks)
    votes = data.draw(st.lists(votes_of(masks, classes), min_size=1, max_size=4))
    clean = data.draw(st.lists(st.integers(ABSENT, classes - 1), min_size=len(votes), max_size=len(votes)))
    cast = [left_out(plain, image) if masks.early_exit else image for image in votes]
    numbers = np.array([[ABSENT if vote is None else vote for vote in image] for image in cast])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NUMBERS_AT_ONCE", data.draw(st.sampled_from([1, 2 * masks.num_masks**2, 2**22])))
        found = recount_masks(masks, numbers, np.array(clean))
        assert not missing(masks, numbers).any()
    for number, (image, label) in enumerate(zip(votes, clean, strict=True)):  # those left out change nothing
        expected = plain.columns(image, label)
        assert {name: getattr(found, name)[number] for name in COLUMNS} == expected


@given(small_masks(most_masks=6), st.data())
def test_a_missing_vote_is_found_unless_it_decides_nothing(masks: Masks, data: st.DataObject) -> None:
    """
    Without an early exit no vote may be null; with one, a pair may be, if none of its rows can be uniform.
    Oracle: that sentence, for every vote and every row.
    """
    classes, plain = data.draw(st.integers(2, 3)), literal(masks)
    votes: list[int | None] = [*data.draw(votes_of(masks, classes))]
    first = masks.num_masks if data.draw(st.booleans()) else 0  # only pairs are missing, or masks, too
    for vote in range(first, len(votes)):
        votes[vote] = None if data.draw(st.booleans()) else votes[vote]
    numbers = np.array([[ABSENT if vote is None else vote for vote in votes]])
    known = all(vote is not None for vote in votes[: masks.num_masks])  # a row without a class of its own: any finding
    expected = [
        vote is None and not (masks.early_exit and plain.may_be_null(votes, number))
        for number, vote in enumerate(votes)
    ]
    found = missing(masks, numbers)[0].tolist()
    assert found == expected if known else any(found)


@pytest.mark.parametrize(
    ("pair", "prediction", "exact"),
    [(0, 0, True), (1, 0, False)],
    ids=["all agree", "the pair of opposite masks differs"],
)
def test_one_pair_breaks_the_certificate(pair: int, prediction: int, exact: bool) -> None:
    """Four masks with nothing in common but a cross in the middle: each alone covers a corner."""
    masks = Masks((2, 2), 2, 1, False, 8)
    votes = np.zeros((1, 10), int)
    votes[0, masks.unions[0, 3]] = pair
    found = recount_masks(masks, votes, np.array([0]))
    assert found.prediction.tolist() == [prediction]
    assert found.recovery_certified.tolist() == found.recovery_published.tolist() == [exact]
    assert found.detection_certified.tolist() == [True]


def test_a_disagreer_wins_with_a_uniform_row() -> None:
    """One mask hides the patch; the others are wrong, but its row is of one class."""
    masks = Masks((2, 2), 2, 1, False, 8)
    votes = np.ones((1, 10), int)
    votes[0, masks.unions[2]] = 0
    assert recount_masks(masks, votes, np.array([0])).prediction.tolist() == [0]
    votes[0, masks.unions[2, 1]] = 1
    assert recount_masks(masks, votes, np.array([0])).prediction.tolist() == [1]


@pytest.mark.parametrize(
    ("settings", "crop"),
    [
        ({"threat": 32, "per_axis": 3}, 224),
        ({"threat": "9x4", "per_axis": 5}, 32),
        ({"threat": 32, "per_axis": 3, "threat_patches": 2}, 224),
        ({"threat": {"pixels": 60}, "per_axis": 3}, 64),
    ],
    ids=["square", "rectangle", "two patches", "area"],
)
def test_it_counts_as_the_engine_does(settings: dict[str, Any], crop: int) -> None:
    """
    Two implementations that share no code agree on the votes, the covering sets and all columns.
    Oracle: the code that makes runs, on votes from unanimous to random, five classes.
    """
    ablation = ablation_of({"kind": "mask", **settings})
    theirs = ablations_of(ablation, crop, crop)
    assert isinstance(ablation, MaskAblation)
    assert isinstance(theirs, MaskSet)
    threat = ablation.threat.pixels if isinstance(ablation.threat, Area) else ablation.threat
    masks = Masks(threat, ablation.per_axis, ablation.threat_patches, early_exit=False, side=crop)
    assert masks.unions.tolist() == theirs.unions.tolist()
    assert {bytes(each) for each in masks.covering} == {bytes(each) for each in theirs.own_covers().sets}
    random = np.random.default_rng(crop)
    shape = (300, masks.num_ablations)
    is_other = random.random(shape) < random.random((300, 1)) ** 6
    votes = np.where(is_other, random.integers(0, 5, shape), random.integers(0, 5, (300, 1)))
    clean = votes[:, 0]
    ours = recount_masks(masks, votes, clean)
    certificates = family_of(ablation).certify(Cast(votes, clean=clean), theirs, classes=5)
    for name in COLUMNS:
        assert getattr(ours, name).tolist() == getattr(certificates, name).tolist(), name
    assert 0 < ours.recovery_certified.sum() < 300
