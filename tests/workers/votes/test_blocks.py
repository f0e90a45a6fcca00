"""A block computed in place, against timm's own."""

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import Block

from smoothcert.workers.votes.blocks import compute_block, is_plain, prepare_block
from tests.helpers.logits import assert_close

_PLAIN = {"layer scale": {"init_values": 0.1}, "plain": {}, "deeper mlp": {"mlp_ratio": 6}}
_OTHER = {"normed queries": {"qk_norm": True}, "no bias": {"qkv_bias": False}, "a norm": {"scale_attn_norm": True}}


def _block(**options: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", depth=1, **options).eval().requires_grad_(False).blocks[0]


@pytest.mark.parametrize("options", [*_PLAIN.values(), *_OTHER.values()])
@pytest.mark.parametrize("tokens", [3, 31, 70])  # plain products and torch's fused attention
def test_it_computes_what_timm_computes(options: dict[str, Any], tokens: int) -> None:
    """All rows, and the first two alone."""
    block, sequences = _block(**options), torch.randn(3, tokens, 192, generator=torch.Generator().manual_seed(1))
    expected = block(sequences)
    prepare_block(block)
    assert_close(compute_block(block, sequences.clone(), read=None), expected, 1e-5)
    assert_close(compute_block(block, sequences.clone(), read=2), expected[:, :2], 1e-5)


@pytest.mark.parametrize("options", _PLAIN.values(), ids=_PLAIN)
def test_norms_attention_and_mlp_are_plain(options: dict[str, Any]) -> None:
    """Scales of branches are folded into weights first."""
    block = _block(**options)
    prepare_block(block)
    assert is_plain(block)


@pytest.mark.parametrize("options", _OTHER.values(), ids=_OTHER)
def test_blocks_with_other_parts_are_not_plain(options: dict[str, Any]) -> None:
    """What is left out would change votes."""
    block = _block(**options)
    prepare_block(block)
    assert not is_plain(block)


def test_a_block_before_it_is_prepared_may_not_be_plain() -> None:
    """Its branches have scales."""
    assert not is_plain(Block(64, 1, init_values=0.1))
    assert not is_plain(torch.nn.Linear(2, 2))
