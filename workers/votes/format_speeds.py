"""How fast this machine computes a block of a Vision Transformer in each number format.

Votes in another format are other votes, of another run. So the job decides; this only says what a format would save.

Not covered: other networks; embedding and head, which take little of the time (benchmarks/engine.py times all of it).
"""

import copy
import time
from typing import get_args

import torch
from timm.models import VisionTransformer
from torch import nn

from smoothcert.manifests.job import Model
from smoothcert.workers.votes.smoothed_vit import compute_block, prepare_block

_TOKENS = 2048
_TURNS = 3


def block_seconds(network: VisionTransformer, tokens: int, device: torch.device) -> dict[str, float]:
    """Seconds for one block by number format: the fastest of three turns, after one that does not count.

    Args:
        network: not changed.
        tokens: of a sequence.
        device: where to compute.
    """
    return {
        dtype: _block_seconds(copy.deepcopy(network.blocks[0]), tokens, getattr(torch, dtype), device)
        for dtype in get_args(Model.model_fields["dtype"].annotation)
    }


@torch.inference_mode()
def _block_seconds(block: nn.Module, tokens: int, dtype: torch.dtype, device: torch.device) -> float:
    block.to(device, dtype)
    prepare_block(block)
    width = next(block.parameters()).shape[-1]
    sequences_SnD = torch.randn(max(1, _TOKENS // tokens), tokens, width).to(device, dtype)
    seconds = []
    for _ in range(_TURNS + 1):
        start = time.perf_counter()
        compute_block(block, sequences_SnD.clone(), read=None).sum().item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
