"""How fast a machine multiplies matrices: the best of the shapes below, in the same run as what it is compared with.

The shapes are those of a block: as many rows as the engine computes together, by the widths of ViT-Ti, -S and -B,
and a square. Not covered: memory, decoding (pipeline.py).
"""

import time

import torch

WIDTHS = (192, 384, 768)
SIDE = {"cpu": 2048, "cuda": 8192}
ROWS = {"cpu": 2048, "cuda": 1 << 17}
SECONDS = {"cpu": 0.2, "cuda": 0.05}
_BEFORE_WAITING = 50  # products; waiting for a GPU takes time itself


def shapes(device: torch.device) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of each product."""
    rows, side = ROWS[device.type], SIDE[device.type]
    wide = [(rows, a * width, b * width) for width in WIDTHS for a, b in ((1, 3), (1, 4), (4, 1))]
    return [*wide, (side, side, side)]


def products_gflops(dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """10^9 operations a second of each shape."""
    seconds = SECONDS[device.type]
    return {"x".join(map(str, shape)): _gflops(*shape, dtype, device, seconds) for shape in shapes(device)}


def blocks_gflops(width: int, blocks: int, dtype: torch.dtype, device: torch.device) -> float:
    """10^9 operations a second of the four products of every block, one after the other, with nothing between them."""
    rows = ROWS[device.type]
    sizes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    inputs = {inner: torch.randn(rows, inner, device=device).to(dtype) for inner, _ in sizes}
    outputs = [torch.empty(rows, columns, dtype=dtype, device=device) for _, columns in sizes]
    weights = [[torch.randn(size, device=device).to(dtype) for size in sizes] for _ in range(blocks)]
    synchronise(device)
    start = time.perf_counter()
    for block in weights:
        for weight, output in zip(block, outputs, strict=True):
            torch.mm(inputs[len(weight)], weight, out=output)
    synchronise(device)
    return 24e-9 * blocks * rows * width**2 / (time.perf_counter() - start)


def _gflops(rows: int, inner: int, columns: int, dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype).T  # as a linear layer holds it
    _ = left @ right
    synchronise(device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        _ = left @ right
        count += 1
        if device.type == "cuda" and count % _BEFORE_WAITING == 0:
            synchronise(device)
    synchronise(device)
    return 2e-9 * count * rows * inner * columns / (time.perf_counter() - start)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
