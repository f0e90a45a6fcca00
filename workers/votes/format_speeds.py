"""How fast this machine computes a block of a Vision Transformer in each number format.

Votes in another format are other votes, of another run. So the job decides; this only says what a format would save.

Not covered: other networks; embedding and head, which take little of the time (benchmarks/engine.py times all of it).
"""

import copy
import time
from contextlib import suppress
from typing import get_args

import torch
from timm.models import VisionTransformer
from torch import Tensor

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import NumberFormat
from smoothcert.workers.votes.block_runs import RunBlocks, block_run, torch_dtype
from smoothcert.workers.votes.memory import keep_freed_memory

_TOKENS = 2048
_TURNS = 3


def block_seconds(network: VisionTransformer, tokens: int, device: torch.device) -> dict[str, float]:
    """Seconds for one block by number format that this machine can compute: the fastest of three turns, after one that
    does not count.

    Args:
        network: not changed.
        tokens: of a sequence.
        device: where to compute.
    """
    if device.type == "cpu":
        keep_freed_memory()  # as an engine does
    seconds = {}
    for dtype in get_args(NumberFormat):
        with suppress(RequestError):  # such as int8 on a GPU
            run = block_run(copy.deepcopy(network.blocks[:1]).to(device), dtype, device)
            width = network.embed_dim
            sequences_SnD = torch.randn(max(1, _TOKENS // tokens), tokens, width).to(device, torch_dtype(dtype))
            seconds[dtype] = _seconds_of(run, sequences_SnD)
    return seconds


@torch.inference_mode()
def _seconds_of(run: RunBlocks, sequences_SnD: Tensor) -> float:
    seconds = []
    for _ in range(_TURNS + 1):
        start = time.perf_counter()
        run(sequences_SnD.clone()).sum().item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
