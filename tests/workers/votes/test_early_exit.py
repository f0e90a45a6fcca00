"""Votes that are left out change no prediction and no certificate."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from smoothcert.manifests.ablation import ablation_of
from smoothcert.manifests.rules import Claim
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.double_masking import DOUBLE_MASKING
from smoothcert.workers.votes.early_exit import needed_votes
from smoothcert.workers.votes.smoothed import Votes

IMAGES, CLASSES = 60, 3


class _Stored:
    """Gives votes that are known, and counts them."""

    def __init__(self, classes: Tensor) -> None:
        self.classes, self.margins, self.cast = classes, torch.rand(classes.shape), 0

    def some_votes(self, images: Tensor, wanted: Tensor) -> Votes:
        classes, margins = self.classes[images], self.margins[images]
        self.cast += int(wanted.sum())
        return Votes(classes.where(wanted, torch.tensor(-1)), margins.where(wanted, torch.tensor(torch.nan)))


def _masks(**keys: object) -> MaskSet:
    masks = ablations_of(ablation_of({"kind": "mask", "threat": 3, "per_axis": 3} | keys), 16, 16)
    assert isinstance(masks, MaskSet)
    return masks


def _votes_of(masks: MaskSet) -> Tensor:
    """Images whose votes agree, but for a few: from none to many."""
    random = np.random.default_rng(0)
    wrong = random.random((IMAGES, masks.num_ablations)) < np.linspace(0, 0.8, IMAGES)[:, None] ** 2
    return torch.from_numpy(np.where(wrong, random.integers(0, CLASSES, wrong.shape), 1))


@pytest.mark.parametrize("keys", [{}, {"threat_patches": 2}])
def test_they_change_no_answer(keys: dict[str, object]) -> None:
    """Prediction, and certificates of recovery and detection, exact and published, also with a tolerance."""
    masks = _masks(**keys)
    model = _Stored(_votes_of(masks))
    votes = needed_votes(model, torch.arange(IMAGES), masks)
    left_out = votes.classes < 0
    assert 0.05 < left_out.float().mean() < 0.95
    assert model.cast == int((~left_out).sum())  # none is cast twice
    assert (votes.classes[~left_out] == model.classes[~left_out]).all()
    assert (votes.margins.isnan() == left_out).all()
    clean = np.ones(IMAGES, int)
    whole = Cast(model.classes.numpy(), model.margins.numpy(), None, clean, np.ones(IMAGES))
    some = Cast(votes.classes.numpy(), votes.margins.numpy(), None, clean, np.ones(IMAGES))
    for name, values in vars(DOUBLE_MASKING.certify(whole, masks, classes=CLASSES)).items():
        found = getattr(DOUBLE_MASKING.certify(some, masks, classes=CLASSES), name)
        assert (values is None and found is None) or (found == values).all(), name
    for tolerance in (0.0, 0.02):
        ballots = [DOUBLE_MASKING.ballots(cast, masks, classes=CLASSES, tolerance=tolerance) for cast in (whole, some)]
        claims = [Claim(certificate, rule) for certificate, rules in DOUBLE_MASKING.rules.items() for rule in rules]
        for side, claim in product((1, 2, 3), claims):
            answers = [DOUBLE_MASKING.rule(claim)(each, masks, Threat(side, side)) for each in ballots]
            assert (answers[0].certified == answers[1].certified).all()


@pytest.mark.parametrize("keys", [{}, {"threat_patches": 2}])
def test_only_votes_of_broken_rows_are_left_out(keys: dict[str, object]) -> None:
    """All rows that hold such a vote hold another one that was cast and is not of the row's own class."""
    masks = _masks(**keys)
    votes = needed_votes(_Stored(_votes_of(masks)), torch.arange(IMAGES), masks).classes.numpy()
    for image in votes:
        broken = [any(image[vote] not in (image[mask], -1) for vote in row) for mask, row in enumerate(masks.unions)]
        for vote in np.flatnonzero(image < 0):
            rows = [mask for mask, row in enumerate(masks.unions) if vote in row]
            assert all(broken[mask] for mask in rows)


def test_other_images_of_the_batch_do_not_matter() -> None:
    """An image alone has the votes that it has among others."""
    masks = _masks()
    model = _Stored(_votes_of(masks))
    together = needed_votes(model, torch.arange(IMAGES), masks)
    for image in (0, 17, 59):
        assert (needed_votes(model, torch.tensor([image]), masks).classes[0] == together.classes[image]).all()
