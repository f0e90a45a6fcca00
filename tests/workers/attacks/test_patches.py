"""One run of one attack: what it finds changes the engine's votes, and nothing else counts."""

import copy

import numpy as np
import pytest
import torch

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.attacks.patches import SQUARE, PatchAttacker, Voted
from smoothcert.workers.certificates.majority import MAJORITY
from smoothcert.workers.certificates.tally import NOBODY, count_votes
from smoothcert.workers.votes.differentiable import differentiable
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed import Votes
from smoothcert.workers.votes.voters import smooth
from tests.helpers.studied import CLASSES, CPU, CROP, PREPROCESS, images, vit

pytest.importorskip("pyautoattack")
PATCH = (9, 6)
NAMES = ("apgd-ce", "apgd-dlr", SQUARE)


class Setting:
    """Six images with votes, places, and what attacks them."""

    def __init__(self, kind: str = "column") -> None:
        network, ablations = vit(spread=0.6), ablations_of(WindowAblation(kind=kind, size=4), CROP, CROP)
        twin = differentiable(copy.deepcopy(network), [ablations], PREPROCESS)
        form = Format("one", CLASSES, keep_hidden=False)
        self.engine = smooth(network, ablations, preprocess=PREPROCESS, format=form, device=CPU)
        pixels = images(6).pixels
        votes = self.engine.votes(pixels).classes.numpy()
        self.images = Voted(pixels, votes, count_votes(votes, classes=CLASSES).prediction.astype(np.int64))
        self.places = np.array([[0, 0], [7, 10], [3, 5], [1, 2], [6, 6], [2, 9]])
        self.attacker = PatchAttacker(twin, self.engine, ablations, MAJORITY, PATCH, classes=CLASSES, device=CPU)

    def attack(self, name: str, seed: int = 0, **settings: int):
        return self.attacker.attack(self.images, self.places, name, **{"steps": 6, "queries": 30} | settings, seed=seed)


@pytest.mark.parametrize("kind", ["column", "row", "block"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_found_changes_the_votes_of_the_engine(kind, name):
    """Oracle: the engine, on the whole image with the patch."""
    setting = Setting(kind)
    finds = setting.attack(name)
    for number, becomes in enumerate(finds.becomes.tolist()):
        if becomes == NOBODY:
            continue
        image = setting.images.pixels[number].clone()
        top, left = setting.places[number].tolist()
        image[top : top + PATCH[0], left : left + PATCH[1]] = finds.patches[number].permute(1, 2, 0)
        votes = setting.engine.votes(image[None]).classes.numpy()
        now = int(count_votes(votes, classes=CLASSES).prediction[0])
        assert now == becomes != setting.images.predictions[number]
    assert not finds.unconfirmed.any()


def test_attacks_find_something():
    """Or the test above would say nothing."""
    assert sum((Setting(kind).attack(name).becomes != NOBODY).sum() for kind in ("column", "row") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_finds_the_same(name):
    one, two = Setting().attack(name), Setting().attack(name)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_what_the_engine_does_not_confirm_does_not_count(monkeypatch):
    """As if the number format of the run rounded every change away."""
    setting = Setting()
    found = setting.attack("apgd-ce").becomes != NOBODY
    assert found.any()
    stored = torch.from_numpy(setting.images.votes[np.flatnonzero(found)])
    monkeypatch.setattr(setting.engine, "votes", lambda pixels: Votes(stored, torch.ones(stored.shape)))
    finds = setting.attack("apgd-ce")
    assert (finds.becomes == NOBODY).all()
    assert finds.unconfirmed.tolist() == found.tolist()


def test_forwards_grow_while_an_attack_runs(monkeypatch):
    """A worker tells by them that there is progress."""
    setting, seen = Setting(), list[int]()
    forward = type(setting.attacker.module(setting.images, setting.places)).forward

    def watched(module, patches):
        seen.append(setting.attacker.forwards)
        return forward(module, patches)

    monkeypatch.setattr(type(setting.attacker.module(setting.images, setting.places)), "forward", watched)
    first = setting.attack("apgd-ce")
    assert seen == sorted(seen)
    assert seen[-1] > seen[0] == 0
    assert setting.attacker.forwards == first.forwards.sum()
    second = setting.attack("apgd-ce", seed=1)
    assert setting.attacker.forwards == first.forwards.sum() + second.forwards.sum()
