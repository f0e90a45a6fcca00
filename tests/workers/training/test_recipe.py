"""What a training file means in timm's terms, where timm alone would mean something else."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess, Storage
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.augmentation import Draws
from smoothcert.workers.training.recipe import draw_ablations, forward_of, kinds_of, optimizer_of, starting_network
from smoothcert.workers.votes.ablated_dense import AblatedDense
from smoothcert.workers.votes.smoothed_vit import SmoothedViT
from tests.helpers.jobs import CLASSES, CROP, OPTIONS, write_weights
from tests.helpers.trainings import small_training

MEAN, STD = (torch.tensor(values) for values in (Preprocess().mean, Preprocess().std))


@pytest.mark.parametrize("name", ["Muon", "muon"])  # timm takes either
def test_muon_orthogonalises_in_float32(tmp_path: Path, name: str) -> None:
    """Its step is the orthogonalised gradient to float32's precision; timm's own bfloat16 is a hundred times off.

    Expected in float64: five steps of Muon's polynomial, on the singular values.
    """
    rate, decay = 0.01, 0.1
    settings = {"name": name, "lr": rate, "momentum": 0.0, "weight_decay": decay}
    chosen = settings | {"options": {"ns_coefficients": "original"}}
    network = nn.Sequential(nn.Linear(24, 40, bias=False))
    weights = network[0].weight
    before = weights.detach().double()
    gradient = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    left, singular, right = torch.linalg.svd(gradient.double(), full_matrices=False)
    singular = singular / singular.norm()
    for _ in range(5):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    orthogonalised = left @ singular.diag() @ right
    expected = before * (1 - rate * decay) - rate * 0.2 * 40**0.5 * orthogonalised

    optimizer = optimizer_of(small_training(tmp_path, optimizer=chosen), network)
    weights.grad = gradient
    optimizer.step()

    torch.testing.assert_close(weights.detach().double(), expected, rtol=0, atol=1e-6)


def test_a_network_that_could_not_vote_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine would refuse after the training is refused before it."""
    plain = SmoothedViT._classify
    monkeypatch.setattr(SmoothedViT, "_classify", lambda self, tokens: plain(self, tokens) + 1)
    with pytest.raises(RequestError, match=r"^model: votes would not be those of vit_tiny_patch16_224"):
        starting_network(small_training(tmp_path), AnyStore(Storage()))


def test_it_starts_from_weights_without_a_head(tmp_path: Path) -> None:
    """As self-supervised training leaves them."""
    start = torch.load(write_weights(tmp_path / "start.pt", classes=7), weights_only=True)
    body = {key: value for key, value in start.items() if not key.startswith("head.")}
    torch.save(body, tmp_path / "body.pt")
    options = {"patch_size": 4, "depth": 1, "embed_dim": 32, "num_heads": 2}
    model = {"architecture": "vit_tiny_patch16_224", "classes": CLASSES, "checkpoint": str(tmp_path / "body.pt")}
    training = small_training(tmp_path, model=model | {"options": options, "checkpoint_classes": 0})
    network = starting_network(training, AnyStore(training.storage))
    assert all(torch.equal(network.state_dict()[key], value) for key, value in body.items())
    assert network.head.weight.shape == (CLASSES, 32)


def test_networks_without_stochastic_depth_are_built(tmp_path: Path) -> None:
    """timm gets drop_path only where the file sets it; a network of timm without it refuses it by name."""
    model = {"architecture": "dla46_c", "classes": CLASSES, "masked_tokens": "keep"}
    changes = {"model": model, "preprocess": {"resize": None, "crop": CROP, "upsample": 4}}
    assert starting_network(small_training(tmp_path, **changes), AnyStore(Storage())).num_classes == CLASSES
    stochastic = small_training(tmp_path, **changes, regularisation={"drop_path": 0.1})
    with pytest.raises(RequestError, match="drop_path_rate"):
        starting_network(stochastic, AnyStore(Storage()))


def test_without_an_ablation_all_images_are_whole(tmp_path: Path) -> None:
    """One ablation that hides nothing, and held-out images vote on the whole image once."""
    training = small_training(tmp_path, ablation=None)
    (whole,) = kinds = kinds_of(training)
    assert whole.num_ablations == 1 and whole.visible(np.array([0])).all()
    assert not draw_ablations(training, kinds, Draws.of_epoch(0, 0, 50)).any()
    voted = ablations_of(training.validated_ablation, CROP, CROP)
    assert voted.num_ablations == 1 and voted.visible(np.array([0])).all()
    starting_network(training, AnyStore(Storage()))


def test_cutout_and_masks_are_drawn_together(tmp_path: Path) -> None:
    """Of billions of cutouts any may be drawn; a network that could drop tokens computes them all."""
    ablation = [
        {"kind": "cutout", "side": 6, "fill": "black"},
        {"kind": "mask", "threat": 4, "per_axis": 3, "fill": "black"},
    ]
    model = {"architecture": "vit_tiny_patch16_224", "classes": CLASSES, "masked_tokens": "keep", "options": OPTIONS}
    training = small_training(tmp_path, ablation=ablation, model=model)
    kinds = kinds_of(training)
    assert [kind.num_ablations for kind in kinds] == [CROP**4, 45]
    drawn = draw_ablations(training, kinds, Draws.of_epoch(0, 0, 1000))
    cutouts = drawn[drawn < CROP**4]
    assert 400 < len(cutouts) < 600
    assert len(cutouts.unique()) > 390
    network = starting_network(training, AnyStore(Storage()))
    forward = forward_of(training, network)
    assert isinstance(forward, AblatedDense)
    pixels = torch.rand(8, 3, CROP, CROP)
    for group in forward.groups(drawn[:8], at_most=8):
        hidden = ~forward.visible(group)[:, 0]
        assert (forward.inputs(pixels, group).permute(0, 2, 3, 1)[hidden] == -MEAN / STD).all()
        assert forward(pixels, group).shape == (8, CLASSES)


def test_a_mixture_is_drawn_by_its_weights(tmp_path: Path) -> None:
    """Each ablation as often as its weight says, each offset of it equally often, so much shown whole."""
    ablation = [{"kind": "column", "size": 3, "weight": 3}, {"kind": "row", "size": 2, "edges": "inside"}]
    training = small_training(tmp_path, ablation=ablation, whole_share=0.2)
    kinds = kinds_of(training)
    drawn = draw_ablations(training, kinds, Draws.of_epoch(0, 0, 31_000)).tolist()
    counts = Counter(drawn)
    assert [kind.num_ablations for kind in kinds] == [16, 15, 1]
    assert set(counts) == set(range(32))
    shares = [sum(counts[number] for number in numbers) / 31_000 for numbers in (range(16), range(16, 31), [31])]
    np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.01)
    assert max(counts[number] for number in range(16)) < 1.2 * min(counts[number] for number in range(16))
