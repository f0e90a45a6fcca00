"""Certificates of an array of votes: those of runs and the golden ones; what is no such array is refused in a line."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.query.answering import query
from smoothcert.workers.ablations import unions
from smoothcert.workers.certificates.cast_votes import certify_votes, query_votes
from smoothcert.workers.runs.run import open_run
from tests.helpers.house import SHARED

GOLDEN = SHARED / "golden" / "golden.npz"
PAIRS = {"kind": "column", "size": 2}
VOTES = np.array([[0, 1, 1, 1], [2, 2, 0, 0]])
CERTIFICATES = ("prediction", "count", "runner_up", "runner_up_count", "max_certified_patch")
CERTIFICATES += ("max_margin_certified_patch",)


def test_certificates_are_those_of_a_run(any_run: Path) -> None:
    """Every column that the run stores, from its votes alone."""
    run = open_run(any_run)
    images, votes, job = run.images(), run.votes(), run.job
    voted = votes[:, 0] >= 0
    found = certify_votes(votes[voted], job.ablation, crop=job.preprocess.crop, classes=job.model.classes)
    assert voted.any()
    for name in CERTIFICATES:
        assert getattr(found, name).tolist() == images[name].drop_null().to_pylist()


@pytest.mark.parametrize("rule", ["exact", "margin"])
@pytest.mark.parametrize(("patch", "patches"), [(1, 1), ((2, 5), 1), ((8, 1), 2)])
def test_answers_are_those_of_a_run(any_run: Path, patch: int | tuple[int, int], patches: int, rule: str) -> None:
    """Image by image, for any patch and both rules."""
    run = open_run(any_run)
    votes, job = run.votes(), run.job
    voted = votes[votes[:, 0] >= 0]
    found = query_votes(
        voted,
        job.ablation.model_dump(),
        crop=job.preprocess.crop,
        classes=job.model.classes,
        patch=patch,
        patches=patches,
        rule=rule,
    )
    rows = query(run, patches=[patch], counts=[patches], rules=[rule]).images()
    assert found.slack.tolist() == rows["slack"].drop_null().to_pylist()
    assert found.certified.tolist() == [row["certified"] for row in rows.to_pylist() if row["slack"] is not None]


@pytest.mark.skipif(not GOLDEN.exists(), reason="golden votes lie beside the repository: absent here")
@pytest.mark.parametrize(("kind", "size", "stride"), [("column", 19, 1), ("block", 75, 16)])
def test_certificates_are_the_golden_ones(kind: str, size: int, stride: int) -> None:
    """They were counted on another machine."""
    golden = np.load(GOLDEN)
    votes = golden[f"{kind}_votes"]
    found = certify_votes(votes, {"kind": kind, "size": size, "stride": stride}, crop=224, classes=10)
    for name in ("prediction", "max_certified_patch", "max_margin_certified_patch"):
        assert (getattr(found, name) == golden[f"{kind}_{name}"]).all()
    assert (found.count == golden[f"{kind}_counts"].max(axis=1)).all()


def test_an_answer_is_that_of_an_attacker_who_tries_everything() -> None:
    """On 4 columns of 2, a patch of 1 column touches two votes; of 3 classes one may have no vote."""
    votes = np.array(list(product(range(3), repeat=4)))
    found = query_votes(votes, PAIRS, crop=4, classes=3, patch=(4, 1))
    for image, certified in zip(votes, found.certified, strict=True):
        counts = np.bincount(image, minlength=3)
        attacked = []
        for left, cast in product(range(4), product(range(3), repeat=2)):
            changed = image.copy()
            changed[[left, left - 1]] = cast  # the ablations that begin at the pixel and before it
            attacked.append(np.bincount(changed, minlength=3).argmax())
        assert certified == (np.array(attacked) == counts.argmax()).all()


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.uint64])
def test_votes_may_have_any_type_of_whole_numbers(kind: type[np.integer[Any]]) -> None:
    """Lists and tensors, too; the array stays as it is."""
    expected = vars(certify_votes(VOTES, PAIRS, crop=4, classes=3))
    given = VOTES.astype(kind)
    for votes in (given, given.tolist(), torch.from_numpy(VOTES)):
        found = vars(certify_votes(votes, PAIRS, crop=4, classes=3))
        assert all((found[name] == values).all() for name, values in expected.items())
    assert given.dtype == kind and (given == VOTES).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"votes": VOTES[:, :3]}, "votes: shape [2, 3] is not [images, 4]; such ablations of 4 x 4 pixels are 4, in"),
        ({"votes": VOTES[0]}, "votes: shape [4] is not [images, 4]"),
        ({"votes": VOTES / 1}, "votes: an array of float64, shape [2, 4], is not one of whole numbers"),
        ({"votes": VOTES > 0}, "votes: an array of bool, shape [2, 4], is not one of whole numbers"),
        (
            {"votes": np.zeros((2, 4, 3))},
            "votes: an array of float64, shape [2, 4, 3], is not one of whole numbers; of logits [images, ablations, "
            "classes] take the argmax",
        ),
        ({"votes": [[0, 1], [2]]}, "votes: cannot be read as an array (setting an array element"),
        ({"votes": VOTES + 1}, "votes: vote 0 of image 1 is 3, and classes are 0 to 2"),
        (
            {"votes": np.array([[0] * 4, [-1] * 4])},
            "votes: vote 0 of image 1 is -1, and classes are 0 to 2; leave images without votes (-1) out",
        ),
        ({"votes": VOTES - 7}, "votes: vote 0 of image 0 is -7, and classes are 0 to 2"),
        ({"classes": 1}, "classes: 1 must be a whole number from 2 on"),
        ({"classes": 3.0}, "classes: 3.0 must be a whole number from 2 on"),
        ({"classes": 1 << 20}, "classes: 1,048,576 are too many; at most 65,536"),
        ({"crop": 0}, "crop: 0 must be a whole number from 1 on"),
        ({"crop": 1}, "ablation.size: 2 is larger than the image's 1 pixels"),
        ({"ablation": {"kind": "column"}}, "ablation.size: missing; add it"),
    ],
)
def test_what_is_no_array_of_votes_is_refused(changes: dict[str, Any], says: str) -> None:
    """In one line, by both functions."""
    arguments: dict[str, Any] = {"votes": VOTES, "ablation": PAIRS, "crop": 4, "classes": 3} | changes
    with pytest.raises(RequestError, match=f"^{re.escape(says)}[^\n]*$"):
        certify_votes(**arguments)
    with pytest.raises(RequestError, match=f"^{re.escape(says)}[^\n]*$"):
        query_votes(**arguments, patch=1)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"patch": 5}, "patch 5 x 5: must be 1 x 1 to 4 x 4, the image"),
        ({"patch": 0}, "patch 0 x 0: must be 1 x 1 to 4 x 4, the image"),
        ({"patch": 1.5}, "patch 1.5: must be the side of a square or (height, width), in whole pixels"),
        ({"patch": 1, "patches": 0}, "patches: 0 must be a whole number from 1 on"),
        ({"patch": 1, "rule": "best"}, "rule: 'best' is unknown; use exact or margin"),
    ],
)
def test_a_question_without_an_answer_is_refused(question: dict[str, Any], says: str) -> None:
    """In one line."""
    with pytest.raises(RequestError, match=f"^{re.escape(says)}$"):
        query_votes(VOTES, WindowAblation(kind="column", size=2), crop=4, classes=3, **question)


def test_no_images_have_no_certificates() -> None:
    """An empty batch is no mistake."""
    none = np.zeros((0, 4), int)
    assert len(certify_votes(none, PAIRS, crop=4, classes=3).prediction) == 0
    assert len(query_votes(none, PAIRS, crop=4, classes=3, patch=1).slack) == 0


def test_what_patches_touch_is_found_once() -> None:
    """A second call, with the same ablation in other words, finds the sets of the first."""
    query_votes(VOTES, PAIRS, crop=4, classes=3, patch=1, patches=2)
    before = unions._reach_of_several.cache_info()
    query_votes(VOTES, WindowAblation(kind="column", size=2), crop=4, classes=3, patch=1, patches=2)
    after = unions._reach_of_several.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
