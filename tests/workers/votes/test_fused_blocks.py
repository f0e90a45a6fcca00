"""The kernels in Triton's interpreter, which runs them on the CPU; test_on_gpu.py runs them on a GPU."""

from typing import Any

import pytest
import timm
import torch
from timm.models import VisionTransformer
from torch import nn

pytest.importorskip("triton")

from smoothcert.workers.votes.fused_blocks import can_fuse
from tests.helpers.interpreted import run_interpreted

# Triton's interpreter has no bfloat16 products.
_INTERPRETED = """
import sys
import timm, torch
from smoothcert.workers.votes import block_runs, fused_blocks

torch.manual_seed(0)
network = timm.create_model("vit_tiny_patch16_224", depth=3).eval().requires_grad_(False)
for parameter in network.parameters():
    parameter.normal_(0, 1.5 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.5)
tokens = {n: torch.randn(3, n, 192, generator=torch.Generator().manual_seed(n)) for n in (3, 31, 43, 70, 172)}
expected = {n: network.blocks(each) for n, each in tokens.items()}
blocks = network.blocks.half()
for n, exact in expected.items():
    own = tokens[n].half()
    found = fused_blocks.run_fused(blocks, own.clone())
    print((found.float() - exact).abs().max().item() / exact.abs().max().item())
    others = torch.full_like(own, 3)
    others[1] = own[1]
    assert torch.equal(fused_blocks.run_fused(blocks, others)[1], found[1])
assert torch.equal(block_runs.fused_if_equal(blocks)(own.clone()), found)
fused_blocks.attend = lambda qkv, heads: qkv[..., : qkv.shape[2] // 3].contiguous()
assert block_runs.fused_if_equal(blocks) is None
"""


def test_kernels_compute_what_timms_blocks_compute() -> None:
    """To the digits of float16, whatever the other sequences are; wrong kernels are not taken."""
    errors = [float(line) for line in run_interpreted(_INTERPRETED).split()]
    assert len(errors) == 5
    assert max(errors) < 3e-3


@pytest.mark.parametrize(
    ("options", "dtype", "fits"),
    [
        ({}, torch.bfloat16, True),
        ({}, torch.float16, True),
        ({}, torch.float32, False),
        ({"qk_norm": True}, torch.bfloat16, False),
        ({"qkv_bias": False}, torch.bfloat16, False),
        ({"init_values": 1e-5}, torch.bfloat16, False),
        ({"embed_dim": 200, "num_heads": 2}, torch.bfloat16, False),
    ],
)
def test_only_plain_blocks_of_16_bits_are_fused(options: dict[str, Any], dtype: torch.dtype, fits: bool) -> None:
    """All others run as before."""
    network: VisionTransformer = timm.create_model("vit_tiny_patch16_224", depth=2, **options)
    assert can_fuse(network.blocks.to(dtype)) == fits


def test_blocks_of_another_kind_are_not_fused() -> None:
    """They have other parts."""
    assert not can_fuse(nn.Sequential(nn.Linear(4, 4, dtype=torch.float16)))
