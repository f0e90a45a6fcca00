"""Images to votes with a Vision Transformer that computes only the tokens an ablation shows.

An ablation that shows 19 of 224 columns has about 30 of 196 tokens, so leaving the hidden ones out saves
six sevenths of the work. Ablations with equally many tokens are computed together, across offsets and
images, so nothing is padded. In the last block only the rows that the head reads are computed.

No operation here mixes sequences, so a vote depends on the pixels of its own ablation alone.

    N images    A ablations of an image    S sequences: each one ablation of one image
    n tokens of a sequence, prefix tokens included    D width of the network    K classes

Covered: timm's VisionTransformer with class, distillation and register tokens and every pooling.
Not covered: pixels to embedded tokens (embedding.py); a block (blocks.py, block_runs.py); other families, whose tokens
cannot be dropped (smoothed_dense.py); batching and votes (smoothed.py); loading (classifiers.py).
Source: Salman et al. 2021, arXiv:2110.07719, section 4; pixels are hidden before normalisation, as there.
"""

from collections.abc import Iterator
from functools import partial

import torch
from timm.models import VisionTransformer
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.shown import Masks, Shown
from smoothcert.workers.votes.block_runs import block_run, torch_dtype
from smoothcert.workers.votes.blocks import compute_block, prepare_block
from smoothcert.workers.votes.embedding import Ablated, Embedded, Embedding, Group
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed import Computed, Smoothed

# How much is computed in one go: few enough tokens for the cache of a CPU; on a GPU so many numbers (tokens times
# width) that launching kernels takes less time than their work. They bound the memory: a block holds at most some 9 D
# numbers a token at once.
_CPU_TOKENS, _GPU_NUMBERS = 2048, 100_000_000


class SmoothedViT(Smoothed):
    """A Vision Transformer that votes.

    Args:
        network: in evaluation mode, float32; taken over and changed.
        shown: the ablations of an image, before it is upsampled.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
        format: of the network.
        device: where to compute.

    Attributes:
        run_blocks: computes all blocks but the last, whose rows are not all read.

    Raises:
        RequestError: this machine cannot compute the blocks in this format.
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
        self._network, dtype = network.to(device), torch_dtype(format.dtype)
        self._embedding = Embedding(network, preprocess, dtype)
        self._ablated = self._embedding.ablated(shown, keep_hidden=format.keep_hidden)
        self._whole = self._embedding.ablated(Masks.whole(shown.height, shown.width), keep_hidden=True)
        self.run_blocks = block_run(network.blocks[:-1], format.dtype, device)
        self._last_block = network.blocks[-1].to(dtype)
        prepare_block(self._last_block)

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
        """Embedded sequences to logits, [S, K]; the final norm and the head in float32."""
        network = self._network
        read = rows_that_the_head_reads(network)
        tokens_SnD = compute_block(self._last_block, self.run_blocks(tokens_SnD), read=read)
        return network.forward_head(network.norm(tokens_SnD.float()))


def rows_that_the_head_reads(network: VisionTransformer) -> int | None:
    """How many tokens from the front the head reads; None for all."""
    if isinstance(network, VisionTransformerDistilled):
        return 2
    return 1 if network.global_pool == "token" else None
