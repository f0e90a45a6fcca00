"""What all engines share: any kind of ablation, checked against timm's forward pass on the painted image."""

import copy

import numpy as np
import pytest
import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed import upsampled
from smoothcert.workers.votes.voters import smooth
from tests.helpers.ablations import other_kinds

_SIDE, _CLASSES = 16, 5
_NAMES = list(other_kinds(_SIDE))


def _vit(side: int) -> VisionTransformer:
    torch.manual_seed(0)
    small = {"patch_size": 4, "depth": 2, "embed_dim": 32, "num_heads": 2}
    network = timm.create_model("vit_tiny_patch16_224", img_size=side, num_classes=_CLASSES, **small)
    for parameter in network.requires_grad_(False).parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.2)
    return network.eval()


def _resnet() -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=_CLASSES, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    return network.eval().requires_grad_(False)


def _painted(images: Tensor, mask: Tensor, preprocess: Preprocess) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    large = upsampled(images * mask[:, :, None], preprocess.upsample).permute(0, 3, 1, 2)
    return (large / 255 - mean) / std


def _without_hidden_tokens(network: VisionTransformer, pixels: Tensor, mask: Tensor) -> Tensor:
    """timm's forward pass in which no token attends to one without a visible pixel."""
    token_px = network.patch_embed.patch_size[0]
    shown = mask.unfold(0, token_px, token_px).unfold(1, token_px, token_px).flatten(2).any(2).flatten()
    shown = torch.cat([torch.ones(1, dtype=torch.bool), shown])
    attention = torch.zeros(len(shown), len(shown)).masked_fill(~shown[None, :], float("-inf"))
    return network.forward_head(network.forward_features(pixels, attn_mask=attention)[:, shown])


@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("keep_hidden", [False, True])
@pytest.mark.parametrize("kind", _NAMES)
def test_a_vit_votes_on_any_kind_of_ablation(kind: str, keep_hidden: bool, upsample: int) -> None:
    """With `keep`, logits are timm's of the painted image; with `drop`, those without attention to hidden tokens."""
    ablations, network = other_kinds(_SIDE)[kind], _vit(_SIDE * upsample)
    preprocess = Preprocess(resize=None, crop=_SIDE, upsample=upsample)
    images = torch.randint(0, 256, (2, _SIDE, _SIDE, 3), dtype=torch.uint8)
    expected = []
    for mask in torch.from_numpy(ablations.visible(np.arange(ablations.num_ablations))):
        pixels = _painted(images, mask, preprocess)
        large = mask.repeat_interleave(upsample, 0).repeat_interleave(upsample, 1)
        expected.append(network(pixels) if keep_hidden else _without_hidden_tokens(network, pixels, large))
    form = Format("a network", _CLASSES, keep_hidden=keep_hidden)
    engine = smooth(
        copy.deepcopy(network), ablations, preprocess=preprocess, format=form, device=torch.device("cpu")
    )  # which checks itself
    torch.testing.assert_close(engine.logits(images), torch.stack(expected, dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", _NAMES)
def test_any_network_votes_on_any_kind_of_ablation(kind: str, dtype: str) -> None:
    """Logits are those of timm's forward pass over the painted images."""
    ablations, network = other_kinds(_SIDE)[kind], _resnet()
    preprocess = Preprocess(resize=None, crop=_SIDE)
    images = torch.randint(0, 256, (2, _SIDE, _SIDE, 3), dtype=torch.uint8)
    masks = torch.from_numpy(ablations.visible(np.arange(ablations.num_ablations)))
    expected = torch.stack([network(_painted(images, mask, preprocess)) for mask in masks], dim=1)
    form = Format("a network", _CLASSES, keep_hidden=True, dtype=dtype)
    engine = smooth(copy.deepcopy(network), ablations, preprocess=preprocess, format=form, device=torch.device("cpu"))
    tolerance = 1e-4 if dtype == "float32" else 0.05 * expected.abs().max().item()
    torch.testing.assert_close(engine.logits(images), expected, rtol=0, atol=tolerance)
    if dtype == "float32":
        assert (engine.votes(images).classes == expected.argmax(-1)).all()
