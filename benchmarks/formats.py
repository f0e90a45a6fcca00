"""Does a shorter number format pay on this machine? A block of a Vision Transformer in each, against float32.

Blocks are computed as an engine computes them. Formats take turns; the median of the rounds' ratios counts.

Run from the repository root: python -m benchmarks.formats [--model vit_tiny_patch16_224 vit_small_patch16_224]
"""

import argparse
import copy
import json
import platform
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import timm
import torch
from rich.console import Console
from rich.table import Table

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import NumberFormat
from smoothcert.workers.votes.block_runs import RunBlocks, block_run, torch_dtype
from smoothcert.workers.votes.memory import keep_freed_memory

_USEFUL = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
_CPU = torch.device("cpu")
_SEQUENCES, _TOKENS = 66, 31  # of columns of 19 pixels; as many as an engine computes together


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a block in each number format.")
    parser.add_argument("--model", nargs="+", default=["vit_tiny_patch16_224", "vit_small_patch16_224"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    table = Table(title=f"{_SEQUENCES * _TOKENS:,} tokens, {args.threads} threads; {instructions()}")
    for heading in ("model", "format", "GFLOP/s of products", "times float32's rate"):
        table.add_column(heading, justify="left" if heading in ("model", "format") else "right")
    records = []
    for model in args.model:
        network: Any = timm.create_model(model, depth=1).eval().requires_grad_(False)
        gflop = 24e-9 * network.embed_dim**2 * _SEQUENCES * _TOKENS
        seconds = _seconds(network, args.rounds)
        for dtype, each in seconds.items():
            ratio = statistics.median(plain / this for plain, this in zip(seconds["float32"], each, strict=True))
            gflops = gflop / statistics.median(each)
            records.append({"model": model, "format": dtype, "gflops": round(gflops, 2), "times_float32": ratio})
            table.add_row(model, dtype, f"{gflops:,.1f}", f"{ratio:.2f}")
    Console(width=120).print(table)
    print(json.dumps({"instructions": instructions(), "formats": records}))


@torch.inference_mode()
def _seconds(network: Any, rounds: int) -> dict[str, list[float]]:
    """Of the network's only block, in each format of this machine, in turns."""
    runs, seconds = dict[str, RunBlocks](), dict[str, list[float]]()
    for dtype in get_args(NumberFormat):
        with suppress(RequestError):  # int8 on some machines
            runs[dtype], seconds[dtype] = block_run(copy.deepcopy(network.blocks), dtype, _CPU), []
    tokens = torch.randn(_SEQUENCES, _TOKENS, network.embed_dim)
    for turn in range(rounds + 1):
        for dtype, run in runs.items():
            sequences = tokens.to(torch_dtype(dtype), copy=True)
            start = time.perf_counter()
            run(sequences)
            if turn:  # the first one does not count
                seconds[dtype].append(time.perf_counter() - start)
    return seconds


def instructions() -> str:
    """The useful instruction sets that this processor has."""
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
        return " ".join(name for name in _USEFUL if name in flags)
    return platform.machine()


if __name__ == "__main__":
    main()
