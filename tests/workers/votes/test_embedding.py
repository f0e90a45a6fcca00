"""Both ways to embed against timm's own layers on masked pixels, and what they do not see."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import VisionTransformer
from torch import Tensor

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.shown import Masks, Shown
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.votes.embedding import Ablated, Embedding
from tests.helpers.logits import assert_close, random_images

_SIDE = 32
_SMALL = {"depth": 1, "embed_dim": 48, "num_heads": 3, "patch_size": 8}


def _network(**options: Any) -> VisionTransformer:
    model = Model(architecture="vit_tiny_patch16_224", options={**_SMALL, **options}, checkpoint="none", classes=2)
    torch.manual_seed(0)
    network: VisionTransformer = build_classifier(model, _SIDE).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_()
    return network


def _sequences(embedding: Embedding, ablated: Ablated, images: Tensor) -> dict[int, Tensor]:
    """Embedded sequences of each ablation, [N, p + n, D]."""
    embedded, found = embedding.embed(images, ablated), {}
    for group in ablated.groups:
        for member, ablation in enumerate(group.ablations.tolist()):
            numbers = torch.arange(len(images))
            found[ablation] = embedded(group, numbers, torch.full_like(numbers, member))
    return found


def _by_timm(network: VisionTransformer, images: Tensor, visible: Tensor, *, keep_hidden: bool) -> Tensor:
    """timm's layers on masked pixels; then the tokens that show a pixel."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (Preprocess().mean, Preprocess().std))
    pixels = (images.permute(0, 3, 1, 2) / 255 * visible - mean) / std
    tokens = network.norm_pre(network._pos_embed(network.patch_embed(pixels)))
    shown = visible.unfold(0, 8, 8).unfold(1, 8, 8).flatten(2).any(2).flatten() | keep_hidden
    return tokens[:, torch.cat([torch.ones(network.num_prefix_tokens, dtype=torch.bool), shown])]


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["column", "row", "block"]),
    size=st.integers(1, _SIDE),
    stride=st.integers(1, 9),
    edges=st.sampled_from(["wrap", "inside"]),
    keep_hidden=st.booleans(),
)
def test_tokens_are_those_of_timm(kind: Any, size: int, stride: int, edges: Any, keep_hidden: bool) -> None:
    """Columns and rows come from the table, blocks from masked pixels unless they show whole tokens only."""
    shown = ablations_of(WindowAblation(kind=kind, size=size, stride=stride, edges=edges), _SIDE, _SIDE)
    network, images = _network(pre_norm=True), random_images(2, _SIDE)
    embedding = Embedding(network, Preprocess(), torch.float32)
    ablated = embedding.ablated(shown, keep_hidden=keep_hidden)
    if kind != "block" or size % 8:
        assert (ablated.patterns is None) == (kind == "block")
    found = _sequences(embedding, ablated, images)
    assert len(found) == shown.num_ablations
    for ablation, sequences in found.items():
        visible = torch.from_numpy(shown.visible(np.array([ablation])))[0]
        assert_close(sequences, _by_timm(network, images, visible, keep_hidden=keep_hidden))


@pytest.mark.parametrize(("kind", "size"), [("column", 3), ("column", 11), ("row", 11), ("block", 11)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_pixels_move_no_digit(kind: Any, size: int, dtype: torch.dtype) -> None:
    """Sequences are equal bit by bit, whatever the hidden pixels are."""
    shown: Shown = ablations_of(WindowAblation(kind=kind, size=size, stride=5), _SIDE, _SIDE)
    embedding, images = Embedding(_network(), Preprocess(), dtype), random_images(1, _SIDE)
    ablated = embedding.ablated(shown, keep_hidden=True)
    before = _sequences(embedding, ablated, images)
    for ablation in range(shown.num_ablations):
        visible = torch.from_numpy(shown.visible(np.array([ablation])))[0, :, :, None]
        for others in (torch.zeros_like(images), torch.full_like(images, 255), 255 - images):
            after = _sequences(embedding, ablated, torch.where(visible, images, others))
            assert torch.equal(after[ablation], before[ablation])


def test_whole_images_are_lines_too() -> None:
    """So the check of an engine on whole images also checks the table."""
    embedding = Embedding(_network(), Preprocess(), torch.float32)
    whole = embedding.ablated(Masks.whole(_SIDE, _SIDE), keep_hidden=True)
    assert whole.patterns is not None
    assert whole.patterns.shape == (1, 8)
    assert whole.tokens_per_image == 16
