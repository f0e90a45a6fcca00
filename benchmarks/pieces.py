"""What each piece of a block costs on a GPU in bfloat16, in nanoseconds a token, and what could replace it.

    product             a linear layer with its bias
    float8              a product with 8-bit tokens and weights, one scale for each row; quantising is not counted.
                        Norm, GELU and rows as they are: with a kernel that quantises, too (float8_blocks.py)
    float8, fast        a product whose sums keep fewer digits (use_fast_accum)
    torch               attention, norm and GELU as torch computes them
    fused               the kernels of workers/votes/fused_blocks.py; fc1 with its GELU: that of linear_gelu.py
    tanh                fc1 with the other form of GELU, which cuBLAS computes with the product
    blocks              all blocks of the network at several numbers of tokens at once: as the engine runs them without
                        and with the kernels, and the latter as one CUDA graph
    copy                what moving memory costs at least

Medians of several turns, by the card's own clock. Errors are the largest difference from float32, as a share of its
largest number (products: relative norm).

Run from the repository root, on a machine with a GPU: python -m benchmarks.pieces
"""

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import float8_blocks
from benchmarks.linear_gelu import linear_gelu
from smoothcert.workers.votes.blocks import compute_block, prepare_block
from smoothcert.workers.votes.fused_blocks import add_and_norm, attend, run_fused

_MODELS = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 768: "vit_base_patch16_224"}
_TOKENS = 1 << 17
_LENGTHS = (29, 31, 43, 57, 172, 197)  # of the sequences of columns of 19 and 37, of masks, of whole images
_HEAD = 64


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the pieces of a block on a GPU.")
    parser.add_argument("--width", type=int, nargs="+", default=list(_MODELS), choices=list(_MODELS))
    widths: list[int] = parser.parse_args().width
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here")
    with torch.inference_mode():
        records = [record for width in widths for record in _measure(width)]
    print(json.dumps({"card": torch.cuda.get_device_name(), "torch": torch.__version__, "pieces": records}))


def _measure(width: int) -> list[dict[str, Any]]:
    records = []

    def show(piece: str, way: str, call: Callable[[], Any], tokens: int = _TOKENS, **more: float) -> None:
        record = {"width": width, "piece": piece, "way": way, "ns_per_token": 1e6 * _ms(call) / tokens, **more}
        records.append(record)
        print(
            "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in record.items())
        )

    rows, wide = _random(_TOKENS, width), _random(_TOKENS, 4 * width)
    show("copy", "torch", rows.clone)
    sizes = {"qkv": (width, 3 * width), "proj": (width, width), "fc1": (width, 4 * width), "fc2": (4 * width, width)}
    for name, (inner, outer) in sizes.items():
        layer = nn.Linear(inner, outer, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
        source = wide if name == "fc2" else rows
        show(name, "product", lambda layer=layer, source=source: layer(source), tflop_per_token=2e-12 * inner * outer)
        for way, fast in (("float8", False), ("float8, fast", True)):
            product = _float8(layer, source, fast=fast)
            show(name, way, product, error=_relative_norm(product(), layer(source)))
    norm = nn.LayerNorm(width, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
    branch, tokens = _random(_TOKENS, width), rows.clone()
    expected = norm((rows.float() + branch.float()).bfloat16())
    show("add and norm", "torch", lambda: norm(rows + branch))
    error = _error(add_and_norm(rows.clone(), branch, norm), expected)
    show("add and norm", "fused", lambda: add_and_norm(tokens, branch, norm), error=error)
    show("add and norm", "float8", lambda: float8_blocks.add_and_norm(tokens, branch, norm))
    show("GELU", "torch", lambda: torch.ops.aten.gelu.out(wide, out=wide))
    fc1 = nn.Linear(width, 4 * width, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
    with_gelu: dict[str, Callable[[], Tensor]] = {
        "torch": lambda: torch.ops.aten.gelu.out(hidden := fc1(rows), out=hidden),
        "tanh": lambda: torch._addmm_activation(fc1.bias, rows, fc1.weight.t(), use_gelu=True),
        "fused": lambda: linear_gelu(rows, fc1),
        "fused, wide tiles": lambda: linear_gelu(rows, fc1, tile=(128, 256, 64)),
    }
    expected = F.gelu(F.linear(rows.float(), fc1.weight.float(), fc1.bias.float()))
    for way, call in with_gelu.items():
        show("fc1 and GELU", way, call, error=((call().float() - expected).norm() / expected.norm()).item())
    show("GELU", "float8", lambda: float8_blocks.gelu(wide))
    show("quantise", "float8", lambda: float8_blocks.quantise(rows))
    for length in _LENGTHS:
        qkv = _random(_TOKENS // length, length, 3 * width)
        parts = qkv.unflatten(2, (3, width // _HEAD, _HEAD)).permute(2, 0, 3, 1, 4)

        def plainly(parts: Tensor = parts) -> Tensor:
            return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)

        error = _error(attend(qkv, width // _HEAD), plainly(parts.float()))
        show(f"attention, {length} tokens", "torch", plainly)
        show(f"attention, {length} tokens", "fused", lambda qkv=qkv: attend(qkv, width // _HEAD), error=error)
    blocks: Any = timm.create_model(_MODELS[width]).eval().requires_grad_(False).to("cuda", torch.bfloat16).blocks
    for block in blocks:
        prepare_block(block)
    for together in (1 << 13, 1 << 15, 1 << 17):
        sequences = _random(together // 31, 31, width)

        def unfused(sequences: Tensor = sequences) -> None:
            for block in blocks:
                sequences = compute_block(block, sequences, read=None)

        show(f"blocks, {together} tokens", "torch", unfused, together)
        show(f"blocks, {together} tokens", "fused", lambda each=sequences: run_fused(blocks, each), together)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run_fused(blocks, sequences)
        show(f"blocks, {together} tokens", "fused, one graph", graph.replay, together)
    return records


def _float8(layer: nn.Linear, source: Tensor, *, fast: bool) -> Callable[[], Tensor]:
    """The product of a layer in float8."""
    rows, weights = float8_blocks.quantised_by_torch(source), float8_blocks.quantised_by_torch(layer.weight)
    weight_scales = weights.scales.t().contiguous()

    def product() -> Tensor:
        return torch._scaled_mm(
            rows.numbers,
            weights.numbers.t(),
            scale_a=rows.scales,
            scale_b=weight_scales,
            bias=layer.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=fast,
        )

    return product


def _relative_norm(found: Tensor, expected: Tensor) -> float:
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)


def _error(found: Tensor, expected: Tensor) -> float:
    return ((found.float() - expected.float()).abs().max() / expected.abs().max()).item()


def _ms(call: Callable[[], Any], turns: int = 12) -> float:
    for _ in range(2):
        call()
    times = []
    for _ in range(turns):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


if __name__ == "__main__":
    main()
