"""Ablations through a network that learns: hidden tokens cost nothing in training either.

Each image has an ablation of its own. Those that show equally many tokens go through the network together, so
nothing is padded; a batch is then a few groups, and the gradient of its loss the sum of the groups' gradients.

The forward is differentiable and goes through timm's own modules, so dropout, drop path and the like do what they
do in timm. In eval mode its logits are those of SmoothedViT, which computes many ablations of each image instead.

    S sequences: an image with its ablation each     n tokens that are shown    T tokens of an image
    P side of a token                                D width of the network     K classes

Pixels outside an ablation are black before normalisation; with `drop` a token without a visible pixel is left out.
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
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.votes.smoothed_vit import positions_of, rows_that_the_head_reads


class Group(NamedTuple):
    """Images of a batch whose ablations show equally many tokens: [S] positions in the batch, and in their table."""

    images: Tensor
    table: "_Table"
    rows: Tensor


class _Table(NamedTuple):
    """Ablations of n tokens each, of all geometries together."""

    tokens: Tensor  # [G, n]
    rows: Tensor  # [G, n, P] bool, the pixel rows that show
    columns: Tensor  # [G, n, P] bool


class AblatedForward(nn.Module):
    """A network and the ablations under which it learns.

    Ablations are numbered through: those of the first geometry in offset order, then those of the next.

    Args:
        network: any VisionTransformer that classifiers.build_classifier gives; its `pos_drop` is taken over.
        geometries: on images before they are upsampled.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
        keep_hidden: compute every token.
    """

    def __init__(
        self,
        network: VisionTransformer,
        geometries: Sequence[Geometry],
        preprocess: Preprocess,
        *,
        keep_hidden: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        # timm drops out of the sum of tokens and positions, which is made here.
        self._pos_drop, network.pos_drop = network.pos_drop, nn.Identity()
        self._token_px = network.patch_embed.patch_size[0]
        self._upsample = preprocess.upsample
        geometries = [geometry.upsampled(self._upsample) for geometry in geometries]
        self._tables, self._table_of, self._row_of = _tables(geometries, self._token_px, keep_hidden=keep_hidden)
        mean, std = torch.tensor([preprocess.mean, preprocess.std])
        self._scale_C11, self._shift_C11 = (1 / std)[:, None, None], (mean / std)[:, None, None]

    def to_device(self, device: torch.device) -> None:
        """Move network and tables."""
        self.network.to(device)
        self._tables = [_Table(*(part.to(device) for part in table)) for table in self._tables]
        self._table_of, self._row_of = self._table_of.to(device), self._row_of.to(device)
        self._scale_C11, self._shift_C11 = self._scale_C11.to(device), self._shift_C11.to(device)

    def groups(self, ablations: Tensor, *, at_most: int) -> Iterator[Group]:
        """The batch in groups of equal token count.

        Args:
            ablations: [images] int64, the number of each image's ablation.
            at_most: images in a group.
        """
        table_of = self._table_of[ablations]
        for number, table in enumerate(self._tables):
            for images in torch.nonzero(table_of == number)[:, 0].split(at_most):
                if len(images):
                    yield Group(images, table, self._row_of[ablations[images]])

    def forward(self, pixels_NCHW: Tensor, group: Group) -> Tensor:
        """[S, K] logits of the images of a group.

        Args:
            pixels_NCHW: [images, channels, height, width], 0 to 1, of the whole batch.
            group: of this batch.
        """
        network = self.network
        embedded_SnD = self._embed(pixels_NCHW, group)
        prefix_1pD, positions_TD = positions_of(network)
        tokens_SnD = torch.cat(
            [prefix_1pD.expand(len(group.images), -1, -1), embedded_SnD + positions_TD[group.table.tokens[group.rows]]],
            dim=1,
        )
        tokens_SnD = network.norm_pre(network.patch_drop(self._pos_drop(tokens_SnD)))
        for block in network.blocks[:-1]:
            tokens_SnD = block(tokens_SnD)
        tokens_SnD = _last_block(network, tokens_SnD)
        return network.forward_head(network.norm(tokens_SnD))

    def _embed(self, pixels_NCHW: Tensor, group: Group) -> Tensor:
        """The shown tokens, [S, n, D]: gathered first, then embedded."""
        P, table = self._token_px, group.table
        pixels_SCHW = F.interpolate(pixels_NCHW[group.images], scale_factor=self._upsample, mode="nearest")
        tokens_STCPP = pixels_SCHW.unfold(2, P, P).unfold(3, P, P).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        each_S1 = torch.arange(len(group.images), device=pixels_SCHW.device)[:, None]
        shown_SnCPP = tokens_STCPP[each_S1, table.tokens[group.rows]]
        visible_SnPP = table.rows[group.rows, :, :, None] & table.columns[group.rows, :, None, :]
        normal_SnCPP = (shown_SnCPP * visible_SnPP[:, :, None]) * self._scale_C11 - self._shift_C11
        projection = self.network.patch_embed.proj
        embedded_SnD = F.linear(normal_SnCPP.flatten(2), projection.weight.flatten(1), projection.bias)
        return self.network.patch_embed.norm(embedded_SnD)


def _last_block(network: VisionTransformer, tokens_SnD: Tensor) -> Tensor:
    """The last block; its MLP only for the rows that the head reads."""
    block, read = network.blocks[-1], rows_that_the_head_reads(network)
    if type(block) is not Block or read is None:
        return block(tokens_SnD)
    tokens_SnD = (tokens_SnD + block.drop_path1(block.ls1(block.attn(block.norm1(tokens_SnD)))))[:, :read]
    return tokens_SnD + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens_SnD))))


def _tables(geometries: Sequence[Geometry], token_px: int, *, keep_hidden: bool) -> tuple[list[_Table], Tensor, Tensor]:
    """A table for each token count; of every ablation its table and its row there."""
    total = sum(geometry.num_ablations for geometry in geometries)
    table_of, row_of = np.zeros((2, total), np.int64)
    parts: dict[int, list[tuple[np.ndarray, ...]]] = {}
    counts: dict[int, int] = {}
    first = 0
    for geometry in geometries:
        for group in geometry.token_groups(token_px, keep_hidden=keep_hidden):
            count = group.tokens.shape[1]
            start = counts.get(count, 0)
            row_of[first + group.ablations] = start + np.arange(len(group.ablations))
            table_of[first + group.ablations] = count
            counts[count] = start + len(group.ablations)
            parts.setdefault(count, []).append((group.tokens, group.rows, group.columns))
        first += geometry.num_ablations
    tables = []
    for number, count in enumerate(sorted(parts)):
        tables.append(_Table(*(torch.from_numpy(np.concatenate(part)) for part in zip(*parts[count], strict=True))))
        table_of[table_of == count] = -1 - number  # negative: not a count that comes later
    return tables, torch.from_numpy(-1 - table_of), torch.from_numpy(row_of)
