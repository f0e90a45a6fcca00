"""Samples become rows, and get votes and certificates, without a value of another row's."""

import numpy as np
import pytest

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.families import MAJORITY
from smoothcert.workers.certificates.majority import LargestPatches, Prediction, certify
from smoothcert.workers.rows import numbers, predictions, row_of, with_certificates, with_votes
from smoothcert.workers.tars.pixels import DecodedSample
from smoothcert.workers.votes.job_voter import ImageVotes

ABLATIONS = ablations_of(WindowAblation(kind="column", size=1), 4, 4)
VOTES = np.array([[1, 1, 1, 0], [2, 2, 2, 2], [0, 1, 0, 1]], np.uint16)
MARGINS = np.arange(12, dtype=np.float32).reshape(3, 4)
SAMPLE = DecodedSample(
    key="a",
    index=7,
    image_offset=512,
    image_bytes=9,
    sha256=b"\1" * 32,
    status="label_error",
    error="no member .cls",
    label=None,
    width=4,
    height=5,
    rotated=True,
)


def votes_of(*, clean: bool, finite: tuple[bool, ...] = (True, True, True)) -> ImageVotes:
    """Of three images."""
    clean_classes, clean_margins = (np.array([5, 6, 7]), np.float32([0.5, 1.5, 2.5])) if clean else (None, None)
    return ImageVotes(VOTES, MARGINS, clean_classes, clean_margins, np.array(finite))


def test_a_row_holds_what_is_known_of_its_sample():
    """All of it but `rotated`, which is a figure of the file."""
    row = row_of("s.tar", SAMPLE)
    assert row.shard == "s.tar"
    names = SAMPLE.__slots__
    assert {name: getattr(row, name) for name in names if name != "rotated"} == {
        name: getattr(SAMPLE, name) for name in names if name != "rotated"
    }
    assert (row.votes, row.margins, row.clean_prediction) == (None, None, None)


@pytest.mark.parametrize("clean", [False, True])
def test_a_row_gets_the_votes_at_its_place(clean):
    """A label error keeps its status: the votes count."""
    row = with_votes(row_of("s.tar", SAMPLE), votes_of(clean=clean), 1)
    assert row.votes.tolist() == [2, 2, 2, 2]
    assert row.margins.tolist() == [4, 5, 6, 7]
    assert (row.clean_prediction, row.clean_margin) == ((6, 1.5) if clean else (None, None))
    assert (row.status, row.error) == ("label_error", "no member .cls")


def test_votes_that_are_not_finite_are_a_model_error():
    """The row has none of them; its neighbours keep theirs."""
    votes = votes_of(clean=True, finite=(True, False, True))
    row = with_votes(row_of("s.tar", SAMPLE), votes, 1)
    assert (row.status, row.error) == ("model_error", "a logit is not finite")
    assert (row.votes, row.margins, row.clean_prediction, row.clean_margin) == (None, None, None, None)
    assert with_votes(row_of("s.tar", SAMPLE), votes, 2).votes.tolist() == [0, 1, 0, 1]


def test_rows_with_votes_get_their_own_certificates():
    """Rows without votes between them change nothing."""
    lost = row_of("s.tar", SAMPLE)
    voted = [with_votes(lost, votes_of(clean=False), place) for place in range(3)]
    rows = [lost, voted[0], lost, lost, voted[1], voted[2]]
    done = with_certificates(rows, MAJORITY, lambda cast: certify(cast.votes, ABLATIONS, classes=3))
    assert [row.predicted for row in done] == [
        None,
        Prediction(1, 3, 0, 1),
        None,
        None,
        Prediction(2, 4, 0, 0),
        Prediction(0, 2, 1, 2),
    ]
    assert [row.certified for row in done if row.votes is None] == [None] * 3
    for place, row in enumerate(row for row in done if row.votes is not None):
        alone = certify(VOTES[place : place + 1], ABLATIONS, classes=3)
        assert row.certified == LargestPatches(
            int(alone.max_certified_patch[0]), int(alone.max_margin_certified_patch[0])
        )


def test_rows_without_votes_need_no_certificates():
    """Neither certificates nor predictions are asked for."""
    lost = row_of("s.tar", SAMPLE)
    assert with_certificates([lost], MAJORITY, pytest.fail) == [lost]
    assert predictions([lost, lost], pytest.fail).tolist() == [-1, -1]
    assert with_certificates([], MAJORITY, pytest.fail) == []


def test_predictions_stand_at_the_place_of_their_rows():
    """-1 where there are no votes, or no number."""
    lost = row_of("s.tar", SAMPLE)
    rows = [lost, with_votes(lost, votes_of(clean=False), 1), lost, with_votes(lost, votes_of(clean=False), 0)]
    assert predictions(rows, lambda cast: cast.votes[:, 0].astype(np.int32)).tolist() == [-1, 2, -1, 1]
    assert numbers([None, 0, 5]).tolist() == [-1, 0, 5]
