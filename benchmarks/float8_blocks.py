"""The blocks of a Vision Transformer with float8 products (e4m3), to measure what the format would gain and change.

Tokens are 8 bits wide inside the four products of a block and nowhere else; sums, norm, softmax and what is added to
the tokens are as in workers/votes/fused_blocks.py. Each row, a token, has its own scale, its largest number over 448,
so a vote still depends on its own ablation alone. Each output row of a weight has one, too. Three kernels quantise:

    add and norm    adds a branch to the tokens, normalises the sum, writes it in float8
    GELU            of the hidden rows, written in float8
    quantise        the output of attention, written in float8

    S sequences    n tokens of each    D width    M hidden width of the MLP    R rows: all tokens of all sequences

Covered: what fused_blocks.py covers, in bfloat16, with the exact GELU; float8 needs a card from Hopper or Ada on.
Not covered: the last block, which the engine computes itself; whether it pays (float8.py).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from smoothcert.workers.votes.block_runs import fused_if_equal
from smoothcert.workers.votes.fused_blocks import added_and_normed, attend, can_fuse
from smoothcert.workers.votes.smoothed_vit import SmoothedViT

FLOAT8 = torch.float8_e4m3fn
_LARGEST = tl.constexpr(448.0)  # number of the format
_SMALLEST = tl.constexpr(1e-20)  # that a row's largest number counts as, so that a row of zeros stays one
_ROWS = 4  # per program of `add and norm` and `quantise`


class Float8Rows(NamedTuple):
    """Rows of numbers: `numbers * scales`.

    Attributes:
        numbers: [rows, width] float8.
        scales: [rows, 1] float32.
    """

    numbers: Tensor
    scales: Tensor

    def float(self) -> Tensor:
        return self.numbers.float() * self.scales


class _Layer(NamedTuple):
    """A linear layer with float8 weights: [outputs, inputs], scales [1, outputs], and its bias as it was."""

    weight: Tensor
    scales: Tensor
    bias: Tensor


class Float8Blocks:
    """Computes blocks with float8 products, as `SmoothedViT.run_blocks` does.

    Args:
        blocks: all that will be run, in 16 bits; they stay as they are.
        fast: whether products keep fewer digits of their sums (`use_fast_accum`).
    Raises:
        ValueError: an activation is not the exact GELU.
    """

    def __init__(self, blocks: nn.Sequential, *, fast: bool) -> None:
        self._blocks, self._fast, self._layers = blocks, fast, dict[nn.Module, _Layer]()
        for block in blocks:
            assert isinstance(block, Block)
            if not isinstance(block.mlp.act, nn.GELU) or block.mlp.act.approximate != "none":
                raise ValueError(f"{block.mlp.act}: float8 blocks compute the exact GELU alone")
            for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
                weight = quantised_by_torch(linear.weight)
                self._layers[linear] = _Layer(weight.numbers, weight.scales.t().contiguous(), linear.bias)

    def __call__(self, tokens_SnD: Tensor) -> Tensor:
        """All rows of the blocks' output; overwrites the input."""
        S, n, _ = tokens_SnD.shape
        branch_RD: Tensor | None = None
        block: Any
        for block in self._blocks:
            normed = add_and_norm(tokens_SnD, branch_RD, block.norm1)
            qkv_Sn3D = self._product(block.attn.qkv, normed).unflatten(0, (S, n))
            mixed = quantise(attend(qkv_Sn3D, block.attn.num_heads))
            normed = add_and_norm(tokens_SnD, self._product(block.attn.proj, mixed), block.norm2)
            hidden = gelu(self._product(block.mlp.fc1, normed))
            branch_RD = self._product(block.mlp.fc2, hidden)
        return tokens_SnD if branch_RD is None else tokens_SnD.add_(branch_RD.view_as(tokens_SnD))

    def _product(self, linear: nn.Linear, rows: Float8Rows) -> Tensor:
        """[R, outputs] in the format of the bias."""
        layer = self._layers[linear]
        return torch._scaled_mm(
            rows.numbers,
            layer.weight.t(),
            scale_a=rows.scales,
            scale_b=layer.scales,
            bias=layer.bias,
            out_dtype=layer.bias.dtype,
            use_fast_accum=self._fast,
        )


class Float8BlocksByTorch(Float8Blocks):
    """The same numbers up to rounding, where there is no GPU."""

    def __call__(self, tokens_SnD: Tensor) -> Tensor:
        """All rows of the blocks' output; overwrites the input."""
        tokens_RD = tokens_SnD.flatten(0, 1)
        block: Any
        for block in self._blocks:
            attention, mlp = block.attn, block.mlp
            qkv = self._product(attention.qkv, quantised_by_torch(block.norm1(tokens_RD)))
            heads = qkv.view(*tokens_SnD.shape[:2], 3, attention.num_heads, attention.head_dim)
            queries, keys, values = heads.permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).reshape_as(tokens_RD)
            tokens_RD += self._product(attention.proj, quantised_by_torch(mixed))
            hidden = F.gelu(self._product(mlp.fc1, quantised_by_torch(block.norm2(tokens_RD))))
            tokens_RD += self._product(mlp.fc2, quantised_by_torch(hidden))
        return tokens_SnD


def use_float8(engine: SmoothedViT, blocks: nn.Sequential, *, fast: bool) -> None:
    """Let an engine in bfloat16 compute all blocks but the last with float8 products from now on.

    Args:
        engine: changed; on a GPU its blocks must be fused ones.
        blocks: of the engine's network.
        fast: as for `Float8Blocks`.
    Raises:
        ValueError: float8 cannot replace the blocks of this engine.
    """
    run = blocks[:-1]
    if not can_fuse(blocks) or any(parameter.dtype != torch.bfloat16 for parameter in blocks.parameters()):
        raise ValueError("float8 replaces plain blocks in bfloat16 only")
    on_cpu = next(blocks.parameters()).device.type == "cpu"
    if not on_cpu and fused_if_equal(run) is None:
        raise ValueError("the kernels do not run on this GPU, so float8 cannot replace them")
    engine.run_blocks = (Float8BlocksByTorch if on_cpu else Float8Blocks)(run, fast=fast)


def quantised_by_torch(rows: Tensor) -> Float8Rows:
    """What the kernels compute, up to the rounding of a quotient: for weights, and to compare with.

    Args:
        rows: [rows, width].
    """
    scales = rows.float().abs().amax(1, keepdim=True).clamp(min=_SMALLEST.value) / _LARGEST.value
    return Float8Rows((rows.float() / scales).to(FLOAT8), scales)


def add_and_norm(tokens_SnD: Tensor, branch_RD: Tensor | None, norm: nn.LayerNorm) -> Float8Rows:
    """Add a branch to the tokens in place, and normalise and quantise the sum."""
    normed, rows, D = _empty_rows(tokens_SnD)
    _add_and_norm[(triton.cdiv(rows, _ROWS),)](
        tokens_SnD,
        branch_RD,
        norm.weight,
        norm.bias,
        normed.numbers,
        normed.scales,
        rows,
        norm.eps,
        WIDTH=D,
        PADDED=triton.next_power_of_2(D),
        ROWS=_ROWS,
        ADDS=branch_RD is not None,
    )
    return normed


def gelu(hidden_RM: Tensor) -> Float8Rows:
    """The exact GELU of hidden rows, quantised."""
    return _quantised(hidden_RM, rows_at_once=1, is_gelu=True)


def quantise(values_SnD: Tensor) -> Float8Rows:
    """Rows as they are, quantised."""
    return _quantised(values_SnD, rows_at_once=_ROWS, is_gelu=False)


def _quantised(values: Tensor, *, rows_at_once: int, is_gelu: bool) -> Float8Rows:
    result, rows, width = _empty_rows(values)
    padded = triton.next_power_of_2(width)
    _quantise[(triton.cdiv(rows, rows_at_once),)](
        values,
        result.numbers,
        result.scales,
        rows,
        WIDTH=width,
        PADDED=padded,
        ROWS=rows_at_once,
        GELU=is_gelu,
        num_warps=8 if padded * rows_at_once > 2048 else 4,
    )
    return result


def _empty_rows(like: Tensor) -> tuple[Float8Rows, int, int]:
    """Room for the rows of a contiguous tensor, their number and width."""
    assert like.is_contiguous()
    width = like.shape[-1]
    rows = like.numel() // width
    numbers = torch.empty(rows, width, dtype=FLOAT8, device=like.device)
    return Float8Rows(numbers, torch.empty(rows, 1, dtype=torch.float32, device=like.device)), rows, width


@triton.jit
def _store(values, numbers, scales, row, place, here, rows):
    """Quantise rows of float32, zero where not `here`."""
    scale = tl.maximum(tl.max(tl.abs(values), 1), _SMALLEST) / _LARGEST
    tl.store(scales + row, scale, row < rows)
    tl.store(numbers + place, (values / scale[:, None]).to(tl.float8e4nv), here)


@triton.jit
def _quantise(
    values, numbers, scales, rows,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    """Some rows."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, PADDED)
    here = (row < rows)[:, None] & (column < WIDTH)[None, :]
    place = row[:, None] * WIDTH + column[None, :]
    result = tl.load(values + place, here, 0.0).to(tl.float32)
    if GELU:
        result = 0.5 * result * (1 + tl.erf(result * 0.7071067811865476))
    _store(result, numbers, scales, row, place, here, rows)


@triton.jit
def _add_and_norm(
    tokens, branch, weight, bias, numbers, scales, rows, eps,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """Some rows."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, PADDED)
    here = (row < rows)[:, None] & (column < WIDTH)[None, :]
    place = row[:, None] * WIDTH + column[None, :]
    result = added_and_normed(tokens, branch, weight, bias, eps, place, here, column, WIDTH, ADDS)
    _store(result, numbers, scales, row, place, here, rows)
