"""A linear layer and its GELU in one Triton kernel, a candidate for fused_blocks.py: saves the hidden rows one way to
the GPU's memory and back.

GELU(x) = x Phi(x), and Phi(x) is close to 1 / (1 + exp(-x p(x^2))) with a polynomial p: the error of GELU is at most
1.3e-5, where that of the known form with tanh is 4.7e-4. It takes one exponential and one division; erf takes some 30
instructions, so that the product waits for it.

    R rows    I inner width    O outer width
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

COEFFICIENTS = (1.59536439, 7.34807120e-2, -5.15733552e-4, -1.68041894e-5)
"""Of p, from the constant on; fitted for x from -7 to 7."""
_C0, _C1, _C2, _C3 = (tl.constexpr(value) for value in COEFFICIENTS)
_FLAT = tl.constexpr(36.0)  # beyond x = 6, p stays what it is there: GELU is 0 or x


def linear_gelu(
    inputs_RI: Tensor, linear: nn.Linear, *, tile: tuple[int, int, int] = (256, 128, 64), stages: int = 3
) -> Tensor:
    """GELU(linear(inputs)), [R, O].

    Args:
        inputs_RI: in 16 bits.
        linear: in the same format.
        tile: rows, columns and inner width of a step; O and I are multiples of its columns and inner width.
        stages: steps that are loaded ahead.
    """
    R, inner = inputs_RI.shape
    outer = linear.out_features
    hidden_RO = inputs_RI.new_empty(R, outer)
    triton.set_allocator(lambda size, align, stream: torch.empty(size, dtype=torch.int8, device=inputs_RI.device))  # noqa: ARG005
    cores = torch.cuda.get_device_properties(inputs_RI.device).multi_processor_count if inputs_RI.is_cuda else 2
    programs = min(cores, triton.cdiv(R, tile[0]) * (outer // tile[1]))
    _linear_gelu[(programs,)](
        inputs_RI, linear.weight, linear.bias, hidden_RO, R, outer, programs,
        INNER=inner, ROWS=tile[0], COLUMNS=tile[1], DEPTH=tile[2], num_stages=stages, num_warps=8,
    )  # fmt: skip
    return hidden_RO


@triton.jit
def _linear_gelu(
    inputs, weight, bias, hidden, rows, outer, programs,
    INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Every `programs`-th tile of the result; neighbours share rows of the inputs."""
    from_inputs = tl.make_tensor_descriptor(inputs, [rows, INNER], [INNER, 1], [ROWS, DEPTH])
    from_weight = tl.make_tensor_descriptor(weight, [outer, INNER], [INNER, 1], [COLUMNS, DEPTH])
    to_hidden = tl.make_tensor_descriptor(hidden, [rows, outer], [outer, 1], [ROWS, COLUMNS])
    across = outer // COLUMNS
    for tile in tl.range(tl.program_id(0), tl.cdiv(rows, ROWS) * across, programs, flatten=True):
        row, column = tile // across * ROWS, tile % across * COLUMNS
        sums = tl.zeros((ROWS, COLUMNS), tl.float32)
        for place in range(0, INNER, DEPTH):
            sums = tl.dot(from_inputs.load([row, place]), from_weight.load([column, place]).T, sums)
        sums += tl.load(bias + column + tl.arange(0, COLUMNS))[None, :].to(tl.float32)
        to_hidden.store([row, column], _gelu(sums).to(hidden.dtype.element_ty))


@triton.jit
def _gelu(x):
    square = tl.minimum(x * x, _FLAT)
    return x / (1 + tl.exp(-x * (_C0 + square * (_C1 + square * (_C2 + square * _C3)))))
