"""Which code computes the blocks of a Vision Transformer, by number format and device.

    float32, bfloat16, float16    blocks.py, on every device
    bfloat16, float16, a GPU      fused_blocks.py, if it gives there what blocks.py gives
    int8                          int8_blocks.py, on a CPU only

Not covered: the last block, of which only some rows are computed, by blocks.py (smoothed_vit.py).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.votes.blocks import compute_block, prepare_block
from smoothcert.workers.votes.int8_blocks import Int8Blocks

RunBlocks = Callable[[Tensor], Tensor]
"""All rows of the blocks' output, [S, n, D]; may overwrite its input."""

_ROUNDING = 0.02  # of 16-bit formats, as a share of the largest number


def torch_dtype(dtype: str) -> torch.dtype:
    """Of the tokens between blocks, in a format of a job: int8 is the format of products alone."""
    return torch.bfloat16 if dtype == "int8" else getattr(torch, dtype)


def block_run(blocks: nn.Sequential, dtype: str, device: torch.device) -> RunBlocks:
    """What computes the blocks.

    Args:
        blocks: float32, on the device; converted to the format, and changed.
        dtype: of the job.
        device: where to compute.
    Raises:
        RequestError: this machine cannot compute them in this format.
    """
    if dtype == "int8":
        if device.type != "cpu":
            raise RequestError("model.dtype: int8 is for CPUs; use bfloat16 on a GPU")
        return Int8Blocks(blocks)
    blocks.to(torch_dtype(dtype))
    for block in blocks:
        prepare_block(block)
    fused = fused_if_equal(blocks) if device.type == "cuda" else None
    return fused or partial(run_plain, blocks)


def run_plain(blocks: nn.Sequential, tokens_SnD: Tensor) -> Tensor:
    """All rows of prepared blocks' output, on every device."""
    for block in blocks:
        tokens_SnD = compute_block(block, tokens_SnD, read=None)
    return tokens_SnD


@torch.inference_mode()
def fused_if_equal(blocks: nn.Sequential) -> RunBlocks | None:
    """The kernels of fused_blocks.py, if they give on random tokens what `compute_block` gives; else None."""
    try:
        from smoothcert.workers.votes.fused_blocks import LONGEST, can_fuse, run_fused
    except ImportError:  # torch without Triton
        return None
    if not blocks or not can_fuse(blocks):
        return None
    weight = next(blocks.parameters())
    random = torch.Generator().manual_seed(0)
    for tokens in (31, LONGEST):
        tokens_SnD = torch.randn(3, tokens, weight.shape[0], generator=random).to(weight)
        expected_SnD = run_plain(blocks[:1], tokens_SnD.clone())
        try:
            found_SnD = run_fused(blocks[:1], tokens_SnD)
        except Exception:  # whatever keeps Triton from compiling here, the blocks run without it
            return None
        if not (found_SnD - expected_SnD).abs().max() <= _ROUNDING * expected_SnD.abs().max():  # nor NaN
            return None
    return partial(run_fused, blocks)
