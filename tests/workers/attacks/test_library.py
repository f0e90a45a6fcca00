"""The libraries' attacks on classifiers whose weakness is known."""

import sys

import pytest
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.attacks.library import Attacked


class Brightness(torch.nn.Module):
    """Class 0 if an image is dark, class 1 if it is bright; four classes, as the targeted loss needs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        mean = images.flatten(1).mean(dim=1)
        return torch.stack([0.5 - mean, mean - 0.5, mean * 0 - 9, mean * 0 - 10], dim=1)


DARK = torch.full((3, 3, 16, 16), 0.4)
CLASSES = torch.zeros(3, dtype=torch.int64)
CALLS = {
    "apgd": lambda one: one.apgd(DARK, CLASSES, steps=5, restarts=1, seed=0),
    "apgd, one run": lambda one: one.apgd_once(DARK, CLASSES, loss="dlr", steps=5, seed=0),
    "apgd, targeted": lambda one: one.apgd_targeted(DARK, CLASSES, steps=5, targets=3, seed=0),
    "square": lambda one: one.square(DARK, CLASSES, queries=50, seed=0),
    "square, one run": lambda one: one.square_once(DARK, CLASSES, queries=50, seed=0),
    "pgd": lambda one: one.pgd(DARK, CLASSES, steps=5, seed=0),
    "fgsm": lambda one: one.fgsm(DARK, CLASSES),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("call", CALLS)
def test_an_attack_finds_what_there_is_within_the_ball_and_nothing_beyond(call, norm):
    """0.4 must become 0.5: by 0.1 for each pixel, or by 0.1 times the root of the number of pixels."""
    needed = 0.1 if norm == "Linf" else 0.1 * 768**0.5
    for share, falls in ((1.5, True), (0.9, False)):
        module = Brightness().eval()
        found = CALLS[call](Attacked(module, norm, share * needed))
        sizes = (found - DARK).flatten(1)
        size = sizes.abs().amax(1) if norm == "Linf" else sizes.norm(dim=1)
        assert (size <= share * needed * 1.0001).all()
        assert (found >= 0).all()
        assert (found <= 1).all()
        fell = module(found).argmax(dim=1) != 0
        if "square" in call:  # it tries at random, and 50 queries are few
            assert falls or not fell.any()
        else:
            assert (fell == falls).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("call", [call for call in CALLS if call != "fgsm"])
def test_the_same_seed_gives_the_same_result(call):
    one, two = (CALLS[call](Attacked(Brightness().eval(), "Linf", 0.05)) for _ in range(2))
    assert torch.equal(one, two)


def test_a_single_run_of_apgd_sees_all_inputs_in_each_step():
    """The module of patches counts on it: it knows an image by its position."""
    module = Brightness().eval()
    Attacked(module, "Linf", 0.2).apgd_once(DARK, CLASSES, loss="ce", steps=7, seed=0)
    assert module.seen == [3] * 8


@pytest.mark.parametrize(("package", "call"), [("pyautoattack", "apgd"), ("foolbox", "pgd")])
def test_a_missing_library_is_one_line(package, call, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RequestError, match=rf"attack: this needs {package}.* pip install 'smoothcert\[attack\]'"):
        CALLS[call](Attacked(Brightness().eval(), "Linf", 0.1))
