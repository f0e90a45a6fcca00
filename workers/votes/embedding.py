"""Pixels to the sequences that enter the first block: embedded tokens with positions, prefix tokens in front.

Two ways, which agree up to rounding:

    table     Columns and rows hide whole lines of a token's pixels, in few patterns: columns of 19 show 31 patterns of
              tokens of 16. So each line of an image is multiplied by its weights once, each pattern is a sum of lines,
              and an ablation picks rows of this table. That costs little more than one whole image.
    pixels    Anything else: the pixels of each token of each ablation are masked and multiplied.

A pattern multiplies hidden lines by zero, so a token depends on its visible pixels alone. Differences of running sums
would be cheaper, but hidden pixels would move their last digits.

    N images    T tokens of an image    P side of a token    V pixel values of a token (C P P)    D width of the network
    S sequences: each one ablation of one image    n tokens that are shown    p prefix tokens
    G ablations of a group    Q patterns

Not covered: which tokens and pixels an ablation shows (ablations/tokens.py); the blocks (block_runs.py).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.models import VisionTransformer
from torch import Tensor

from smoothcert.manifests.ablation import Fill
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.shown import Shown
from smoothcert.workers.ablations.tokens import token_groups, visible_pixels
from smoothcert.workers.votes.smoothed import upsampled


class Group(NamedTuple):
    """Ablations of equal token count: G ablations, n tokens each."""

    ablations: Tensor  # [G]
    tokens: Tensor  # [G, n]
    visible: Tensor  # [G, n, P, P] uint8, 1 where the pixel shows
    patterns: Tensor | None = None  # [G, n], numbers of patterns; None if pixels are masked one by one


class Ablated(NamedTuple):
    """The ablations of upsampled images, as tensors."""

    groups: list[Group]
    fill: Fill  # what hidden pixels become
    patterns: Tensor | None  # [Q, P] float32, 1 where a line shows; None if pixels are masked one by one
    lines: int  # dimension of [..., P, P] along which lines are counted: -1 for columns of pixels, -2 for rows

    @property
    def tokens_per_image(self) -> int:
        return sum(group.tokens.numel() for group in self.groups)


Embedded = Callable[[Group, Tensor, Tensor], Tensor]
"""Gives [S, p + n, D] in the blocks' dtype: of a group, the image of each sequence [S] and its ablation there [S]."""


class Embedding:
    """All that a Vision Transformer computes before its first block.

    W (x / 255 - mean) / std + b = W' x + b', so it takes raw pixels, and black is a 0; and W' (x - 255 mean) + b,
    so a pixel that is the mean is a 0. Products are float32 for every dtype: b' would lose digits in a shorter format.

    Args:
        network: float32, on its device; its norm before the blocks is changed to `dtype`.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
        dtype: of the blocks.
    """

    def __init__(self, network: VisionTransformer, preprocess: Preprocess, dtype: torch.dtype) -> None:
        embed = network.patch_embed
        self._device, self._dtype = embed.proj.weight.device, dtype
        self._token_px, self._upsample = embed.patch_size[0], preprocess.upsample
        mean, std = torch.tensor([preprocess.mean, preprocess.std], device=self._device, dtype=torch.float64)
        weight_DCPP = embed.proj.weight.double()
        shift_D = (weight_DCPP * (mean / std)[:, None, None]).sum((1, 2, 3))
        bias_D = torch.zeros_like(shift_D) if embed.proj.bias is None else embed.proj.bias.double()
        self._weight_DCPP = (weight_DCPP / (255 * std)[:, None, None]).float()
        self._biases: dict[Fill, Tensor] = {"black": (bias_D - shift_D).float(), "mean": bias_D.float()}
        self._mean_C11 = (255 * mean)[:, None, None].float()
        self._norm, self._norm_before_blocks = embed.norm, network.norm_pre.to(dtype)
        with torch.inference_mode():
            self._prefix_1pD, self._positions_TD = positions_of(network)

    @property
    def num_prefix_tokens(self) -> int:
        return self._prefix_1pD.shape[1]

    def ablated(self, shown: Shown, *, keep_hidden: bool) -> Ablated:
        """Ablations as `embed` needs them.

        Args:
            shown: the ablations of an image, before it is upsampled.
            keep_hidden: compute hidden tokens, too.
        """
        shown = shown.upsampled(self._upsample)
        groups = [
            Group(
                torch.from_numpy(group.ablations).to(self._device),
                torch.from_numpy(group.tokens).to(self._device),
                torch.from_numpy(visible_pixels(shown, group, self._token_px)).view(torch.uint8).to(self._device),
            )
            for group in token_groups(shown, self._token_px, keep_hidden=keep_hidden)
        ]
        for lines, other in ((-1, -2), (-2, -1)):
            if shown.fill == "black" and all(_constant(group.visible, other) for group in groups):
                return _with_patterns(groups, lines)
        return Ablated(groups, shown.fill, patterns=None, lines=0)

    @torch.inference_mode()
    def embed(self, images_NHWC: Tensor, ablated: Ablated) -> Embedded:
        """Embed images, [N, height, width, C] uint8, before they are upsampled."""
        P = self._token_px
        images = upsampled(images_NHWC.to(self._device), self._upsample)
        tokens_NTCPP = images.unfold(1, P, P).unfold(2, P, P).flatten(1, 2).contiguous()
        if ablated.patterns is None:
            return partial(self._from_pixels, tokens_NTCPP, ablated.fill)
        N, T = tokens_NTCPP.shape[:2]
        return partial(self._from_table, self._table(tokens_NTCPP, ablated.patterns, ablated.lines), N, T)

    def _table(self, tokens_NTCPP: Tensor, patterns_QP: Tensor, lines: int) -> Tensor:
        """Every pattern of every token, [p + Q N T, D] in the blocks' dtype; prefix tokens first."""
        pixels = tokens_NTCPP.flatten(0, 1).movedim(lines, 0).flatten(2).float()  # [P, N T, C P]
        weights = self._weight_DCPP.movedim(lines, 0).flatten(2).transpose(1, 2)  # [P, C P, D]
        products = (pixels @ weights).flatten(1)  # [P, N T D]
        sums = (patterns_QP @ products).view(-1, tokens_NTCPP.shape[1], weights.shape[2])  # [Q N, T, D]
        tokens = self._norm(sums.add_(self._biases["black"])) + self._positions_TD
        return self._norm_before_blocks(torch.cat([self._prefix_1pD[0], tokens.flatten(0, 1)]).to(self._dtype))

    def _from_table(self, table: Tensor, N: int, T: int, group: Group, image_S: Tensor, member_S: Tensor) -> Tensor:
        p = self.num_prefix_tokens
        assert group.patterns is not None
        rows_Sn = (group.patterns * (N * T) + group.tokens + p)[member_S] + image_S[:, None] * T
        prefix_Sp = torch.arange(p, device=self._device).expand(len(member_S), -1)
        return F.embedding(torch.cat([prefix_Sp, rows_Sn], dim=1), table)

    def _from_pixels(self, tokens_NTCPP: Tensor, fill: Fill, group: Group, image_S: Tensor, member_S: Tensor) -> Tensor:
        tokens_Sn, visible_Sn1PP = group.tokens[member_S], group.visible[member_S][:, :, None]
        shown_SnCPP = tokens_NTCPP[image_S[:, None], tokens_Sn]
        if fill == "black":
            shown_SnCPP = shown_SnCPP.mul_(visible_Sn1PP).float()
        else:  # hidden pixels are the mean, 0 after normalisation
            shown_SnCPP = shown_SnCPP.float().sub_(self._mean_C11).mul_(visible_Sn1PP)
        embedded_SnD = F.linear(shown_SnCPP.flatten(2), self._weight_DCPP.flatten(1), self._biases[fill])
        embedded_SnD = self._norm(embedded_SnD) + self._positions_TD[tokens_Sn]
        prefix_SpD = self._prefix_1pD.expand(len(image_S), -1, -1)
        return self._norm_before_blocks(torch.cat([prefix_SpD, embedded_SnD], dim=1).to(self._dtype))


def positions_of(network: VisionTransformer) -> tuple[Tensor, Tensor]:
    """Prefix tokens with their positions, [1, p, D], and the positions of all others, [T, D]."""
    rows, columns = network.patch_embed.grid_size
    shape = (rows, columns) if network.dynamic_img_size else (rows * columns,)
    # timm adds positions to all tokens at once, so zeros in their place give prefix and positions alone.
    zeros = network.patch_embed.proj.weight.new_zeros(1, *shape, network.embed_dim)
    prefix_1pD, positions_1TD = network._pos_embed(zeros).split([network.num_prefix_tokens, rows * columns], dim=1)
    return prefix_1pD, positions_1TD[0]


def _constant(visible: Tensor, dimension: int) -> bool:
    """Whether all pixels along a dimension are alike."""
    return bool((visible == visible.narrow(dimension, 0, 1)).all())


def _with_patterns(groups: list[Group], lines: int) -> Ablated:
    """Number the patterns; lines are counted along the dimension `lines` of [G, n, P, P]."""
    other = -3 - lines
    each = [group.visible.select(other, 0) for group in groups]  # [G, n, P]
    patterns, numbers = torch.unique(torch.cat([one.flatten(0, 1) for one in each]), dim=0, return_inverse=True)
    parts = numbers.split([group.tokens.numel() for group in groups])
    numbered = [group._replace(patterns=part.view_as(group.tokens)) for group, part in zip(groups, parts, strict=True)]
    return Ablated(numbered, "black", patterns.float(), lines)
