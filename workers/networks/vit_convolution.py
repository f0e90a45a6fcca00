"""`vit_convolution`: a Vision Transformer with a convolution in place of self-attention, as an architecture of timm.

It answers what attention itself contributes: depth, width, MLPs, norms and residuals are those of a VisionTransformer.
In place of attention each token is mixed with its eight neighbours: a 3 x 3 convolution over the grid of tokens, in as
many groups as there would be heads, then a linear layer. With three heads it has as many weights as attention. There is
no class token, and the head reads the mean of all tokens. The network to compare with is a VisionTransformer with
{class_token: false, global_pool: avg}.

A convolution needs the whole grid, so tokens cannot be left out.
Importing this module registers the architecture.
Source of the comparison: Wang & Ruan 2022, arXiv:2208.00906. There the convolution goes along the sequence of tokens.
"""

from math import isqrt
from typing import Any

from timm.models import VisionTransformer, register_model
from torch import Tensor, nn


class ConvolutionTransformer(VisionTransformer):  # type: ignore[misc]
    """A VisionTransformer without attention, whose tokens cannot be left out."""


class _Convolution(nn.Module):
    """Mixes tokens that are neighbours; takes the place of timm's Attention, with its arguments."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        proj_drop: float = 0.0,
        **_: Any,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(dim, dim, 3, padding=1, groups=num_heads, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        """[images, tokens, width] to the same; the tokens are a square grid, row by row."""
        side = isqrt(x.shape[1])
        mixed = self.convolution(x.transpose(1, 2).unflatten(2, (side, side))).flatten(2).transpose(1, 2)
        out: Tensor = self.proj_drop(self.proj(mixed))
        return out


@register_model  # type: ignore[untyped-decorator]
def vit_convolution(
    *,
    embed_dim: int = 192,
    num_heads: int = 3,
    pretrained: bool = False,  # noqa: ARG001  there are no weights to download
    pretrained_cfg: object = None,  # noqa: ARG001
    pretrained_cfg_overlay: object = None,  # noqa: ARG001
    cache_dir: object = None,  # noqa: ARG001
    **arguments: Any,
) -> ConvolutionTransformer:
    """Build the network; by default in the size of vit_tiny_patch16_224.

    Args:
        embed_dim: width of the network.
        num_heads: groups of the convolutions.
        pretrained, pretrained_cfg, pretrained_cfg_overlay, cache_dir: arguments that timm gives to every builder.
        arguments: of timm's VisionTransformer.
    """
    return ConvolutionTransformer(
        embed_dim=embed_dim,
        num_heads=num_heads,
        class_token=False,
        global_pool="avg",
        attn_layer=_Convolution,
        **arguments,
    )
