"""Votes of masks are those of a plain loop over timm's own forward pass, for networks of three families."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from smoothcert.manifests.ablation import ablation_of
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.voters import smooth

SIDE, IMAGES, CLASSES = 32, 20, 5
NETWORKS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": SIDE, "patch_size": 4, "depth": 2, "embed_dim": 48, "num_heads": 3},
    "resnet18": {"zero_init_last": False},  # timm's zeros would hide most of the image from the last layer
    "convnext_atto": {},
}


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=CLASSES, **NETWORKS[name]).eval().requires_grad_(False)
    for parameter in network.get_classifier().parameters():
        nn.init.normal_(parameter, std=0.3)  # timm's zeros would give every image the same logits
    return network


@torch.inference_mode()
def _loop(network: nn.Module, images: torch.Tensor, masks: MaskSet, preprocess: Preprocess) -> torch.Tensor:
    """[images, ablations, classes]: one mask at a time, painted on the pixels before normalisation."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    pixels = images.permute(0, 3, 1, 2) / 255
    logits = []
    for shown in torch.from_numpy(masks.visible(np.arange(masks.num_ablations))):
        colour = mean if masks.fill == "mean" else torch.zeros_like(mean)
        logits.append(network((torch.where(shown, pixels, colour) - mean) / std))
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize("fill", ["black", "mean"])
@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_those_of_a_plain_loop(name: str, fill: str) -> None:
    """20 images, 45 votes each, to 1e-4."""
    ablation = ablation_of({"kind": "mask", "threat": 5, "per_axis": 3, "fill": fill})
    masks, preprocess = ablations_of(ablation, SIDE, SIDE), Preprocess(resize=None, crop=SIDE)
    assert isinstance(masks, MaskSet)
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8))
    network = _network(name)
    expected = _loop(network, images, masks, preprocess)
    content = {"architecture": name, "checkpoint": "none", "classes": CLASSES, "masked_tokens": "keep"}
    voting = Format.of(Model.model_validate(content))
    voter = smooth(network, masks, preprocess=preprocess, format=voting, device=torch.device("cpu"))
    assert torch.allclose(voter.logits(images), expected, rtol=0, atol=1e-4)
    votes, top = voter.votes(images), expected.topk(2, dim=-1).values
    assert torch.allclose(votes.margins, top[..., 0] - top[..., 1], rtol=0, atol=1e-4)
    clear = top[..., 0] - top[..., 1] > 2e-4
    assert clear.float().mean() > 0.9
    assert (votes.classes == expected.argmax(dim=-1))[clear].all()
    assert len(votes.classes.unique()) > 1
    assert len(voter.logits(images[:1])[0].unique(dim=0)) == masks.num_ablations


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_some_votes_are_those_among_all(name: str) -> None:
    """What is not wanted is -1, with a margin of NaN."""
    masks = ablations_of(ablation_of({"kind": "mask", "threat": 5, "per_axis": 3}), SIDE, SIDE)
    preprocess = Preprocess(resize=None, crop=SIDE)
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8))
    kept = "drop" if name.startswith("vit") else "keep"
    content = {"architecture": name, "checkpoint": "none", "classes": CLASSES, "masked_tokens": kept}
    voting = Format.of(Model.model_validate(content))
    voter = smooth(_network(name), masks, preprocess=preprocess, format=voting, device=torch.device("cpu"))
    wanted = torch.rand(3, masks.num_ablations, generator=torch.Generator().manual_seed(0)) < 0.3
    every, some = voter.votes(images), voter.some_votes(images, wanted)
    assert (some.classes[wanted] == every.classes[wanted]).all()
    assert torch.allclose(some.margins[wanted], every.margins[wanted], rtol=0, atol=1e-5)
    assert (some.classes[~wanted] == -1).all()
    assert some.margins[~wanted].isnan().all()
