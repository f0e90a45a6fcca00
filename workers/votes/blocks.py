"""One block of a Vision Transformer, computed in place, with no more than the head reads.

    S sequences    n tokens of each    D width

No operation mixes sequences. Covered: blocks of timm of every kind; those that are not plain are timm's own forward
pass. Not covered: blocks in 16 bits on a GPU (fused_blocks.py) and with 8-bit products on a CPU (int8_blocks.py).
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention, LayerScale, Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

# Tokens up to which plain matrix products beat torch's fused attention on a CPU.
_SHORT = {torch.float32: 64, torch.bfloat16: 512, torch.float16: 64}


class _GELUInPlace(nn.GELU):
    """Overwrites its input, which nothing else reads: on a CPU another tensor costs as much time as the function."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.ops.aten.gelu.out(input, approximate=self.approximate, out=input)


@torch.no_grad()
def prepare_block(block: Any) -> None:
    """Change a block so that `compute_block` can overwrite its input; the function stays the same, up to rounding."""
    if type(block) is not Block or type(block.attn) is not Attention:
        return
    _fold_scale(block.attn.proj, block.ls1)
    block.ls1 = nn.Identity()
    if type(block.mlp) is Mlp:
        _fold_scale(block.mlp.fc2, block.ls2)
        block.ls2 = nn.Identity()
        if type(block.mlp.act) is nn.GELU:
            block.mlp.act = _GELUInPlace(block.mlp.act.approximate)


def is_plain(block: Any) -> bool:
    """Whether a prepared block is norms, attention and MLP with biases, and nothing else."""
    if type(block) is not Block or type(block.attn) is not Attention or type(block.mlp) is not Mlp:
        return False
    attention, mlp = block.attn, block.mlp
    identities = (block.ls1, block.ls2, attention.q_norm, attention.k_norm, attention.norm, mlp.norm)
    return (
        all(isinstance(each, nn.Identity) for each in identities)
        and attention.gate is None
        and all(isinstance(each, nn.LayerNorm) and each.bias is not None for each in (block.norm1, block.norm2))
        and all(each.bias is not None for each in (attention.qkv, attention.proj, mlp.fc1, mlp.fc2))
    )


def _fold_scale(linear: nn.Linear, scale: nn.Module) -> None:
    if isinstance(scale, LayerScale):
        linear.weight.mul_(scale.gamma[:, None])
        if linear.bias is not None:
            linear.bias.mul_(scale.gamma)


def compute_block(block: Any, tokens_SnD: Tensor, *, read: int | None) -> Tensor:
    """One transformer block, which overwrites its input. Computes the first `read` rows of its output; None: all."""
    if type(block) is not Block or type(block.attn) is not Attention:
        return block(tokens_SnD)
    mixed_SnD = _attention(block.attn, block.norm1(tokens_SnD), read=read)
    rows_SnD = tokens_SnD[:, :read].contiguous()
    _add_linear(rows_SnD, block.attn.proj, mixed_SnD)
    normed_SnD, mlp = block.norm2(rows_SnD), block.mlp
    if type(mlp) is Mlp:
        _add_linear(rows_SnD, mlp.fc2, mlp.norm(mlp.act(mlp.fc1(normed_SnD))))
    else:
        rows_SnD += block.ls2(mlp(normed_SnD))
    return rows_SnD


def _add_linear(rows_SnD: Tensor, linear: nn.Linear, inputs_SnM: Tensor) -> None:
    """rows += linear(inputs), without a copy of the bias or of the rows."""
    if linear.bias is not None:
        rows_SnD.add_(linear.bias)
    rows_SnD.flatten(0, 1).addmm_(inputs_SnM.flatten(0, 1), linear.weight.t())


def _attention(attention: Attention, tokens_SnD: Tensor, *, read: int | None) -> Tensor:
    """timm's Attention up to its projection. Only the first `read` tokens give queries; all give keys and values."""
    heads = (attention.num_heads, attention.head_dim)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    if read is None:
        queries, keys, values = attention.qkv(tokens_SnD).unflatten(2, (3, *heads)).unbind(2)
    else:
        D = attention.attn_dim
        queries = F.linear(tokens_SnD[:, :read], weight[:D], None if bias is None else bias[:D]).unflatten(2, heads)
        keys_values = F.linear(tokens_SnD, weight[D:], None if bias is None else bias[D:])
        keys, values = keys_values.unflatten(2, (2, *heads)).unbind(2)
    queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    mixed = _attend(queries, keys, values, attention.scale).transpose(1, 2).flatten(2)
    mixed = attention.norm(mixed)
    if attention.gate is not None:
        mixed = mixed * attention.gate(tokens_SnD[:, :read]).sigmoid()
    return mixed


def mix_tokens(qkv_Sn3D: Tensor, attention: Attention) -> Tensor:
    """Plain attention of all tokens, [S, n, D], from queries, keys and values side by side."""
    heads = (3, attention.num_heads, attention.head_dim)
    queries, keys, values = qkv_Sn3D.unflatten(2, heads).permute(2, 0, 3, 1, 4)
    return _attend(queries, keys, values, attention.scale).transpose(1, 2).flatten(2)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """[S, heads, rows, head width]."""
    if queries.device.type == "cpu" and keys.shape[2] <= _SHORT[keys.dtype]:
        scores = queries * scale @ keys.transpose(2, 3)
        weights = scores.softmax(dim=-1, dtype=torch.float32)  # four times as fast as in bfloat16
        return weights.to(values.dtype) @ values
    return F.scaled_dot_product_attention(queries, keys, values)
