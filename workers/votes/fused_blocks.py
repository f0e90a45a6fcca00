"""The blocks of a Vision Transformer on a GPU in a 16-bit format, with kernels that move each number few times.

Matrix products are torch's. What lies between them would take as long as the products themselves, because every step
reads and writes all tokens. So two kernels in Triton do most of it:

    attention     all keys and values of a head of a short sequence at once, without padding 30 tokens to 128
    add and norm  adds a branch to the tokens, and normalises the sum for the next product

    S sequences    n tokens of each    D width    H heads    d width of a head    M hidden width of the MLP

A program of each kernel reads one sequence or some rows, never across sequences, so a vote depends on its own ablation
alone. Sums, softmax and norm are float32 inside.

Covered: timm's plain blocks. Not covered: all others, float32 and CPUs (blocks.py).
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from smoothcert.workers.votes.blocks import is_plain

_FORMATS = (torch.bfloat16, torch.float16)
LONGEST = 256
"""Tokens of a sequence up to which the kernel computes attention; torch does for longer ones."""
_HEAD_WIDTHS = (16, 32, 64, 128)
_QUERIES = 64  # at most, per program
_ROWS = 2  # per program


def can_fuse(blocks: nn.Sequential) -> bool:
    """Whether these kernels compute what the blocks compute."""
    return all(parameter.dtype in _FORMATS for parameter in blocks.parameters()) and all(map(_fits, blocks))


def _fits(block: Any) -> bool:
    return is_plain(block) and block.attn.head_dim in _HEAD_WIDTHS


def run_fused(blocks: nn.Sequential, tokens_SnD: Tensor) -> Tensor:
    """All rows of the blocks' output; overwrites the input."""
    branch_SnD: Tensor | None = None
    block: Any
    for block in blocks:
        normed_SnD = add_and_norm(tokens_SnD, branch_SnD, block.norm1)
        mixed_SnD = attend(block.attn.qkv(normed_SnD), block.attn.num_heads)
        normed_SnD = add_and_norm(tokens_SnD, block.attn.proj(mixed_SnD), block.norm2)
        hidden_SnM = block.mlp.act(block.mlp.fc1(normed_SnD))
        branch_SnD = block.mlp.fc2(hidden_SnM)
    return tokens_SnD if branch_SnD is None else tokens_SnD.add_(branch_SnD)


def attend(qkv_Sn3D: Tensor, heads: int) -> Tensor:
    """Attention of each sequence to itself: [S, n, D] from queries, keys and values side by side, [S, n, 3 D]."""
    S, n, width = qkv_Sn3D.shape
    D = width // 3
    if n > LONGEST:
        queries, keys, values = qkv_Sn3D.unflatten(2, (3, heads, D // heads)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
    mixed_SnD = qkv_Sn3D.new_empty(S, n, D)
    tokens = max(16, triton.next_power_of_2(n))
    queries = min(tokens, _QUERIES)
    _attend[(S, heads, triton.cdiv(n, queries))](
        qkv_Sn3D,
        mixed_SnD,
        n,
        (D // heads) ** -0.5,
        D,
        HEAD=D // heads,
        TOKENS=tokens,
        QUERIES=queries,
        num_warps=2 if tokens <= 32 else 4,
    )
    return mixed_SnD


def add_and_norm(tokens_SnD: Tensor, branch_SnD: Tensor | None, norm: nn.LayerNorm) -> Tensor:
    """Add a branch to the tokens in place, and normalise the sum."""
    normed_SnD = torch.empty_like(tokens_SnD)
    D = tokens_SnD.shape[-1]
    rows = tokens_SnD.numel() // D
    _add_and_norm[(triton.cdiv(rows, _ROWS),)](
        tokens_SnD,
        branch_SnD,
        norm.weight,
        norm.bias,
        normed_SnD,
        rows,
        norm.eps,
        WIDTH=D,
        PADDED=triton.next_power_of_2(D),
        ROWS=_ROWS,
        ADDS=branch_SnD is not None,
        num_warps=2,
    )
    return normed_SnD


@triton.jit
def _attend(qkv, mixed, n, scale, D, HEAD: tl.constexpr, TOKENS: tl.constexpr, QUERIES: tl.constexpr):
    """Some queries of one head of one sequence, against all its keys."""
    sequence, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    rows = tl.program_id(2) * QUERIES + tl.arange(0, QUERIES)
    tokens, numbers = tl.arange(0, TOKENS), head * HEAD + tl.arange(0, HEAD)
    first = qkv + sequence * n * 3 * D
    queries = tl.load(first + rows[:, None] * 3 * D + numbers[None, :], (rows < n)[:, None], 0.0)
    place = first + tokens[:, None] * 3 * D + numbers[None, :]
    keys = tl.load(place + D, (tokens < n)[:, None], 0.0)
    values = tl.load(place + 2 * D, (tokens < n)[:, None], 0.0)
    scores = tl.dot(queries, tl.trans(keys)) * scale
    scores = tl.where((tokens < n)[None, :], scores, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    weights = weights / tl.sum(weights, 1)[:, None]
    result = tl.dot(weights.to(values.dtype), values)
    out = mixed + sequence * n * D + rows[:, None] * D + numbers[None, :]
    tl.store(out, result.to(values.dtype), (rows < n)[:, None])


@triton.jit
def _add_and_norm(
    tokens, branch, weight, bias, normed, rows, eps,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """Some rows."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, PADDED)
    here = (row < rows)[:, None] & (column < WIDTH)[None, :]
    place = row[:, None] * WIDTH + column[None, :]
    result = added_and_normed(tokens, branch, weight, bias, eps, place, here, column, WIDTH, ADDS)
    tl.store(normed + place, result.to(normed.dtype.element_ty), here)


@triton.jit
def added_and_normed(
    tokens, branch, weight, bias, eps, place, here, column, WIDTH: tl.constexpr, ADDS: tl.constexpr
):  # fmt: skip
    """Add a branch to rows of the tokens, if there is one, store the sums, and return them normalised, in float32."""
    sums = tl.load(tokens + place, here, 0.0)
    if ADDS:
        sums = (sums.to(tl.float32) + tl.load(branch + place, here, 0.0).to(tl.float32)).to(sums.dtype)
        tl.store(tokens + place, sums, here)
    values = sums.to(tl.float32)
    centred = tl.where(here, values - (tl.sum(values, 1) / WIDTH)[:, None], 0.0)
    spread = 1 / tl.sqrt(tl.sum(centred * centred, 1) / WIDTH + eps)
    scale = tl.load(weight + column, column < WIDTH, 0.0).to(tl.float32)
    shift = tl.load(bias + column, column < WIDTH, 0.0).to(tl.float32)
    return centred * spread[:, None] * scale[None, :] + shift[None, :]
