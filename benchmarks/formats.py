"""Does a narrower number format pay on this machine? A linear layer of a block in each, against float32.

    bfloat16, float16   weights and activations
    int8, product       oneDNN's product of 8-bit tokens and weights packed once, nothing else
    int8                the same with what a layer needs around it: a scale for each token, found and divided out
                        before, multiplied in after; tokens come and go in bfloat16
    int8, torchao       torchao's Int8DynamicActivationInt8WeightConfig, where torchao is installed

Each token has its own scale: with one scale for a batch, a touched ablation could change untouched votes. Formats take
turns; the median of the rounds' ratios counts.

Run from the repository root: python -m benchmarks.formats
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

_USEFUL = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
_TOKENS = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a linear layer in several number formats.")
    parser.add_argument("--width", type=int, default=384, help="of the network; the layer is WIDTH to 4 WIDTH")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    layers = layers_of(args.width)
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    with torch.inference_mode():
        for layer in layers.values():
            layer()
        for _ in range(args.rounds):
            for name, layer in layers.items():
                start = time.perf_counter()
                layer()
                seconds[name].append(time.perf_counter() - start)
    gflop = 2e-9 * _TOKENS * 4 * args.width**2
    table = Table(title=f"{_TOKENS} tokens, {args.width} to {4 * args.width}, {args.threads} threads; {instructions()}")
    for heading in ("format", "GFLOP/s", "times float32's rate"):
        table.add_column(heading, justify="left" if heading == "format" else "right")
    record = {}
    for name, each in seconds.items():
        ratio = statistics.median(plain / this for plain, this in zip(seconds["float32"], each, strict=True))
        record[name] = {"gflops": round(gflop / statistics.median(each), 2), "times_float32": round(ratio, 4)}
        table.add_row(name, f"{record[name]['gflops']:,.1f}", f"{ratio:.3f}")
    Console(width=120).print(table)
    print(json.dumps({"instructions": instructions(), **record}))


def layers_of(width: int) -> dict[str, Callable[[], Tensor]]:
    """The layer in every format this machine can run."""
    torch.manual_seed(0)
    tokens, layer = torch.randn(_TOKENS, width), nn.Linear(width, 4 * width).requires_grad_(False)
    layers: dict[str, Callable[[], Tensor]] = {"float32": lambda: layer(tokens)}
    for dtype in (torch.bfloat16, torch.float16):
        narrow, narrow_tokens = nn.Linear(width, 4 * width, dtype=dtype).requires_grad_(False), tokens.to(dtype)
        layers[str(dtype).removeprefix("torch.")] = lambda layer=narrow, tokens=narrow_tokens: layer(tokens)  # type: ignore[misc]
    layers |= int8_layers(tokens, layer)
    with suppress(ImportError):
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        quantised = nn.Sequential(nn.Linear(width, 4 * width))
        quantise = Int8DynamicActivationInt8WeightConfig()
        quantize_(quantised, quantise)
        layers["int8, torchao"] = lambda: quantised(tokens)
    return layers


def int8_layers(tokens: Tensor, layer: nn.Linear) -> dict[str, Callable[[], Tensor]]:
    """The layer in int8: its product alone, and with all that is around it.

    Tokens are unsigned, with zero at 128: VNNI multiplies unsigned by signed bytes.
    """
    scales = layer.weight.abs().amax(1) / 127
    weight = (layer.weight / scales[:, None]).round().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, list(tokens.shape))
    zeros, short = torch.zeros(len(scales), dtype=torch.int32), tokens.bfloat16()

    def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
        row_scales = rows.abs().amax(1, keepdim=True).float() / 127
        return (rows / row_scales).add_(128).round_().to(torch.uint8), row_scales

    def product(bytes_: Tensor) -> Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            bytes_, 1.0, 128, packed, scales, zeros, None, 1.0, 0, torch.bfloat16, "none", [], ""
        )

    def whole() -> Tensor:
        bytes_, row_scales = quantised(short)
        return product(bytes_).mul_(row_scales).add_(layer.bias)

    ready, _ = quantised(tokens)
    found, expected = whole().float(), layer(tokens)
    assert (found - expected).norm() < 0.03 * expected.norm(), "int8 is not the layer"
    return {"int8, product": lambda: product(ready), "int8": whole}


def instructions() -> str:
    """The useful instruction sets that this processor has."""
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
        return " ".join(name for name in _USEFUL if name in flags)
    return platform.machine()


if __name__ == "__main__":
    main()
