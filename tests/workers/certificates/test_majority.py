"""What is stored of each image: prediction, runner-up and the largest certified squares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Certificate, Claim, RuleName, Subject
from smoothcert.workers.ablations import threats as reaches
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.certificates.majority import MAJORITY, Certificates, certify


def _columns(certificates: Certificates) -> dict[str, list[int]]:
    return {name: values.tolist() for name, values in vars(certificates).items()}


@settings(max_examples=25)
@given(st.data())
def test_images_do_not_matter_to_each_other(data: st.DataObject) -> None:
    """Certificates of many images at once, more than are worked on together, are those of each image alone."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 7, 7)
    seed = data.draw(st.integers(0, 2**32 - 1))
    votes = (np.random.default_rng(seed).random((300, 7)) ** 3 * 4).astype(np.int64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reaches, "NUMBERS_AT_ONCE", 1000)  # some 140 images
        together = certify(votes, geometry, classes=5)
    for one in data.draw(st.lists(st.integers(0, 299), min_size=1, max_size=3)):
        alone = certify(votes[one : one + 1], geometry, classes=5)
        assert _columns(alone) == {name: values[one : one + 1] for name, values in _columns(together).items()}


def test_the_runner_up_of_a_unanimous_image_is_the_lowest_other_class() -> None:
    """Where all votes agree, the runner-up is the lowest other class, with no votes."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=1), 4, 4)
    found = certify(np.array([[0] * 4, [2] * 4]), geometry, classes=3)
    assert found.prediction.tolist() == [0, 2]
    assert found.runner_up.tolist() == [1, 0]
    assert found.runner_up_count.tolist() == [0, 0]


def test_votes_of_other_ablations_are_refused() -> None:
    """Votes that are not one for each ablation are a defect, never certified."""
    votes = np.zeros((1, 5), np.int64)
    with pytest.raises(ValueError, match="do not fit 4 ablations"):
        certify(votes, RowsTimesColumns.of(WindowAblation(kind="column", size=1), 4, 4), classes=2)


def test_no_images_have_no_certificates() -> None:
    """Of no images there are no certificates, and no error."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=1), 4, 4)
    found = _columns(certify(np.zeros((0, 4), np.int64), geometry, classes=2))
    assert list(found.values()) == [[]] * 6


def test_narrow_votes_are_counted_right() -> None:
    """Votes as 16-bit numbers, the type of the table, give the same certificates as wide ones."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 8, 8)
    votes = np.random.default_rng(0).integers(0, 65536, (40, 8)) // 30000 * 30000
    wide = certify(votes, geometry, classes=65536)
    narrow = certify(votes.astype(np.uint16), geometry, classes=65536)
    assert _columns(narrow) == _columns(wide)


@pytest.mark.parametrize(
    "claim",
    [
        Claim(rule=RuleName.margin, top=2),
        Claim(rule=RuleName.margin, of=Subject.label),
        Claim(rule=RuleName.published),
        Claim(Certificate.detection),
        Claim(alarm_below=0.1),
    ],
)
def test_other_claims_are_refused(claim: Claim) -> None:
    """Majority votes decide recovery only; the margin rule, only of the prediction against every rival."""
    with pytest.raises(RequestError, match="columns, rows and blocks do not decide"):
        MAJORITY.rule(claim)
