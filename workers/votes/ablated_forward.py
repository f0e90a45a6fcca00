"""The forward pass of training for a Vision Transformer: hidden tokens cost nothing in training either.

Each image has an ablation of its own. Images whose ablations show equally many tokens go through the network together,
so nothing is padded. A batch is then a few groups, and the gradient of its loss is the sum of the groups' gradients.

The forward pass is differentiable and goes through timm's own modules, so dropout and drop path work as in timm. In
evaluation mode its logits are those of SmoothedViT, which computes many ablations of each image instead.

    S sequences: each an image with its ablation     n tokens that are shown    T tokens of an image
    P side of a token                                D width of the network     K classes

Hidden pixels are black before normalisation, or its mean; with `drop` a token without a visible pixel is left out.
Source: Salman et al. 2021, arXiv:2110.07719, section 4.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.shown import Shown
from smoothcert.workers.ablations.tokens import token_groups
from smoothcert.workers.votes.embedding import positions_of
from smoothcert.workers.votes.smoothed_vit import rows_that_the_head_reads
from smoothcert.workers.votes.visible import VisiblePixels


class Group(NamedTuple):
    """Images of a batch whose ablations show equally many tokens."""

    images: Tensor  # [S] positions in the batch
    ablations: Tensor  # [S] the ablation of each
    tokens: Tensor  # [S, n] the tokens that it shows


class AblatedForward(nn.Module):
    """A network and the ablations under which it learns, numbered as in VisiblePixels.

    Args:
        network: any VisionTransformer that classifiers.build_classifier gives; its `pos_drop` moves here.
        kinds: ablations of images before they are upsampled.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
        keep_hidden: compute every token.
        every_row: compute the last block for every token, not only for those that the head reads.
    """

    def __init__(
        self,
        network: VisionTransformer,
        kinds: Sequence[Shown],
        preprocess: Preprocess,
        *,
        keep_hidden: bool = False,
        every_row: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self._every_row = every_row
        # timm applies dropout to the sum of tokens and positions, which is computed here.
        self._pos_drop, network.pos_drop = network.pos_drop, nn.Identity()
        self._token_px = network.patch_embed.patch_size[0]
        self._upsample = preprocess.upsample
        self._kinds = kinds
        self._visible = VisiblePixels(kinds, torch.device("cpu"))
        large = [kind.upsampled(self._upsample) for kind in kinds]
        self._tables, self._table_of, self._row_of = _tables(large, self._token_px, keep_hidden=keep_hidden)
        mean, std = torch.tensor([preprocess.mean, preprocess.std])
        self._scale_C11, self._shift_C11 = (1 / std)[:, None, None], (mean / std)[:, None, None]

    def to_device(self, device: torch.device) -> None:
        """Move network and tables."""
        self.network.to(device)
        self._visible = VisiblePixels(self._kinds, device)
        self._tables = [table.to(device) for table in self._tables]
        self._table_of, self._row_of = self._table_of.to(device), self._row_of.to(device)
        self._scale_C11, self._shift_C11 = self._scale_C11.to(device), self._shift_C11.to(device)

    def groups(self, ablations: Tensor, *, at_most: int) -> Iterator[Group]:
        """Split the batch into groups of equal token count.

        Args:
            ablations: [images] int64, the number of each image's ablation.
            at_most: largest number of images in a group.
        """
        table_of = self._table_of[ablations]
        for number, table in enumerate(self._tables):
            for images in torch.nonzero(table_of == number)[:, 0].split(at_most):
                if len(images):
                    yield Group(images, ablations[images], table[self._row_of[ablations[images]]])

    def visible(self, group: Group) -> Tensor:
        """[S, 1, height, width] bool: the pixels that the ablations of a group show."""
        return self._visible.of(group.ablations)[:, None]

    def forward(self, pixels_NCHW: Tensor, group: Group) -> Tensor:
        """[S, K] logits of the images of a group.

        Args:
            pixels_NCHW: [images, channels, height, width], 0 to 1, of the whole batch.
            group: of this batch.
        """
        return self.classify(self.inputs(pixels_NCHW, group), group)

    def inputs(self, pixels_NCHW: Tensor, group: Group) -> Tensor:
        """[S, channels, side, side]: what the network sees of a group, normalised; arguments as for `forward`."""
        visible_S1HW = self.visible(group)
        shown_SCHW = self._large(pixels_NCHW[group.images] * visible_S1HW) * self._scale_C11 - self._shift_C11
        return shown_SCHW * self._large(visible_S1HW.float()) if self._visible.fill == "mean" else shown_SCHW

    def _large(self, images_SCHW: Tensor) -> Tensor:
        return F.interpolate(images_SCHW, scale_factor=self._upsample, mode="nearest")

    def classify(self, inputs_SCHW: Tensor, group: Group) -> Tensor:
        """[S, K] logits of the `inputs` of a group."""
        network = self.network
        embedded_SnD = self._embed(inputs_SCHW, group)
        prefix_1pD, positions_TD = positions_of(network)
        prefix_SpD = prefix_1pD.expand(len(group.images), -1, -1)
        tokens_SnD = torch.cat([prefix_SpD, embedded_SnD + positions_TD[group.tokens]], dim=1)
        tokens_SnD = network.norm_pre(network.patch_drop(self._pos_drop(tokens_SnD)))
        for block in network.blocks[:-1]:
            tokens_SnD = block(tokens_SnD)
        tokens_SnD = network.blocks[-1](tokens_SnD) if self._every_row else _last_block(network, tokens_SnD)
        return network.forward_head(network.norm(tokens_SnD))

    def _embed(self, inputs_SCHW: Tensor, group: Group) -> Tensor:
        """The shown tokens, [S, n, D]: gathered first, then embedded."""
        P = self._token_px
        tokens_STCPP = inputs_SCHW.unfold(2, P, P).unfold(3, P, P).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        each_S1 = torch.arange(len(group.images), device=inputs_SCHW.device)[:, None]
        shown_SnCPP = tokens_STCPP[each_S1, group.tokens]
        projection = self.network.patch_embed.proj
        embedded_SnD = F.linear(shown_SnCPP.flatten(2), projection.weight.flatten(1), projection.bias)
        return self.network.patch_embed.norm(embedded_SnD)


def _last_block(network: VisionTransformer, tokens_SnD: Tensor) -> Tensor:
    """Compute the last block, its MLP only for the rows that the head reads."""
    block, read = network.blocks[-1], rows_that_the_head_reads(network)
    if type(block) is not Block or read is None:
        return block(tokens_SnD)
    tokens_SnD = (tokens_SnD + block.drop_path1(block.ls1(block.attn(block.norm1(tokens_SnD)))))[:, :read]
    return tokens_SnD + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens_SnD))))


def _tables(kinds: Sequence[Shown], token_px: int, *, keep_hidden: bool) -> tuple[list[Tensor], Tensor, Tensor]:
    """A table [G, n] of shown tokens for each token count; then the table of each ablation, and its row there."""
    tokens: dict[int, list[np.ndarray]] = {}
    ablations: dict[int, list[np.ndarray]] = {}
    first = 0
    for kind in kinds:
        for group in token_groups(kind, token_px, keep_hidden=keep_hidden):
            tokens.setdefault(group.tokens.shape[1], []).append(group.tokens)
            ablations.setdefault(group.tokens.shape[1], []).append(first + group.ablations)
        first += kind.num_ablations
    table_of, row_of = np.zeros((2, first), np.int64)
    for number, count in enumerate(sorted(ablations)):
        those = np.concatenate(ablations[count])
        table_of[those], row_of[those] = number, np.arange(len(those))
    tables = [torch.from_numpy(np.concatenate(tokens[count])) for count in sorted(tokens)]
    return tables, torch.from_numpy(table_of), torch.from_numpy(row_of)
