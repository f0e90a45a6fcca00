"""Images to votes with a Vision Transformer that computes only the tokens an ablation shows.

An ablation that shows 19 of 224 columns has about 30 of 196 tokens, so leaving the hidden ones out saves
six sevenths of the work. Ablations with equally many tokens are computed together, across offsets and
images, so nothing is padded. In the last block only the rows that the head reads are computed.

No operation here mixes sequences, so a vote depends on the pixels of its own ablation alone.

    N images    A ablations of an image    S sequences: each one ablation of one image
    n tokens of a sequence, prefix tokens included    D width of the network    K classes

Covered: timm's VisionTransformer with class, distillation and register tokens and every pooling.
Not covered: pixels to embedded tokens (embedding.py); blocks in 16 bits on a GPU (fused_blocks.py); other families,
whose tokens cannot be dropped (smoothed_dense.py); batching and votes (smoothed.py); loading (classifiers.py).
Source: Salman et al. 2021, arXiv:2110.07719, section 4; pixels are hidden before normalisation, as there.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention, LayerScale, Mlp
from timm.models import VisionTransformer
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.shown import Masks, Shown
from smoothcert.workers.votes.embedding import Ablated, Embedded, Embedding, Group
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed import Computed, Smoothed

# How much is computed in one go: few enough tokens for the cache of a CPU; on a GPU so many numbers (tokens times
# width) that launching kernels takes less time than their work. They bound the memory: a block holds at most some 9 D
# numbers a token at once.
_CPU_TOKENS, _GPU_NUMBERS = 2048, 100_000_000
_ROUNDING = 0.02  # of 16-bit formats, as a share of the largest number
# Tokens up to which plain matrix products beat torch's fused attention on a CPU.
_SHORT = {torch.float32: 64, torch.bfloat16: 512, torch.float16: 64}


class SmoothedViT(Smoothed):
    """A Vision Transformer that votes.

    Args:
        network: in evaluation mode, float32; taken over and changed.
        shown: the ablations of an image, before it is upsampled.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
        format: of the network.
        device: where to compute.
    """

    def __init__(
        self,
        network: VisionTransformer,
        shown: Shown,
        *,
        preprocess: Preprocess,
        format: Format,
        device: torch.device,
    ) -> None:
        super().__init__(
            num_ablations=shown.num_ablations,
            num_classes=format.classes,
            device=device,
            at_once=_CPU_TOKENS if device.type == "cpu" else _GPU_NUMBERS // network.embed_dim,
        )
        self._network, dtype = network.to(device), getattr(torch, format.dtype)
        self._embedding = Embedding(network, preprocess, dtype)
        self._ablated = self._embedding.ablated(shown, keep_hidden=format.keep_hidden)
        self._whole = self._embedding.ablated(Masks.whole(shown.height, shown.width), keep_hidden=True)
        network.blocks.to(dtype)
        for block in network.blocks:
            prepare_block(block)
        self._run_fused = fused_if_equal(network.blocks) if device.type == "cuda" else None

    def one_logits(self, image: Tensor, ablation: Shown, *, keep_hidden: bool) -> Tensor:
        ablated = self._embedding.ablated(ablation, keep_hidden=keep_hidden)
        return next(self._computed(image[None], ablated)).logits[0]

    def _ablated_logits(self, images: Tensor, wanted: Tensor | None = None) -> Iterator[Computed]:
        return self._computed(images, self._ablated, wanted)

    def _whole_logits(self, images: Tensor) -> Iterator[Computed]:
        return self._computed(images, self._whole)

    def _computed(self, images: Tensor, ablated: Ablated, wanted_NA: Tensor | None = None) -> Iterator[Computed]:
        """Embed as many images together as one part needs, then compute their sequences group by group."""
        together = max(1, self._at_once // ablated.tokens_per_image) if ablated.patterns is not None else len(images)
        for first in range(0, len(images), together):
            some = images[first : first + together]
            embedded = self._embedding.embed(some, ablated)
            for group in ablated.groups:
                members, tokens = group.tokens.shape
                sequences = torch.arange(len(some) * members, device=self._device)
                if wanted_NA is not None:
                    sequences = sequences[wanted_NA[first : first + together, group.ablations].flatten()]
                compute = partial(self._sequence_logits, embedded, group)
                parts = self._in_parts(sequences, tokens + self._embedding.num_prefix_tokens, compute)
                for part_S, logits_SK in parts:
                    yield Computed(first + part_S // members, group.ablations[part_S % members], logits_SK)

    @torch.inference_mode()
    def _sequence_logits(self, embedded: Embedded, group: Group, part_S: Tensor) -> Tensor:
        members = len(group.ablations)
        return self._classify(embedded(group, part_S // members, part_S % members))

    def _classify(self, tokens_SnD: Tensor) -> Tensor:
        """Embedded sequences to logits, [S, K]: timm's own modules; the final norm and the head in float32."""
        network = self._network
        read = rows_that_the_head_reads(network)
        if self._run_fused is not None:
            tokens_SnD = self._run_fused(network.blocks[:-1], tokens_SnD)
        else:
            for block in network.blocks[:-1]:
                tokens_SnD = compute_block(block, tokens_SnD, read=None)
        tokens_SnD = compute_block(network.blocks[-1], tokens_SnD, read=read)
        return network.forward_head(network.norm(tokens_SnD.float()))


@torch.inference_mode()
def fused_if_equal(blocks: nn.Sequential) -> Callable[[nn.Sequential, Tensor], Tensor] | None:
    """`run_blocks` of fused_blocks.py, if it gives on random tokens what `compute_block` gives; else None."""
    try:
        from smoothcert.workers.votes.fused_blocks import LONGEST, can_fuse, run_blocks
    except ImportError:  # torch without Triton
        return None
    if not can_fuse(blocks):
        return None
    block: Any = blocks[0]
    weight = block.attn.qkv.weight
    random = torch.Generator().manual_seed(0)
    for tokens in (31, LONGEST):
        tokens_SnD = torch.randn(3, tokens, weight.shape[1], generator=random).to(weight)
        expected_SnD = compute_block(block, tokens_SnD.clone(), read=None)
        try:
            found_SnD = run_blocks(blocks[:1], tokens_SnD)
        except Exception:  # whatever keeps Triton from compiling here, the blocks run without it
            return None
        if not (found_SnD - expected_SnD).abs().max() <= _ROUNDING * expected_SnD.abs().max():  # nor NaN
            return None
    return run_blocks


class _GELUInPlace(nn.GELU):
    """Overwrites its input, which nothing else reads: on a CPU another tensor costs as much time as the function."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.ops.aten.gelu.out(input, approximate=self.approximate, out=input)


def rows_that_the_head_reads(network: VisionTransformer) -> int | None:
    """How many tokens from the front the head reads; None for all."""
    if isinstance(network, VisionTransformerDistilled):
        return 2
    return 1 if network.global_pool == "token" else None


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


def _attend(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """[S, heads, rows, head width]."""
    if queries.device.type == "cpu" and keys.shape[2] <= _SHORT[keys.dtype]:
        scores = queries * scale @ keys.transpose(2, 3)
        weights = scores.softmax(dim=-1, dtype=torch.float32)  # four times as fast as in bfloat16
        return weights.to(values.dtype) @ values
    return F.scaled_dot_product_attention(queries, keys, values)
