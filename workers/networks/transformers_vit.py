"""`transformers_vit`: the Vision Transformers of Hugging Face transformers, as an architecture of timm.

timm's own builders cannot set all that a config.json of transformers sets: the epsilon of the norms, the width of the
MLP in numbers, and DINOv2's head, which reads the class token and the mean of the image's tokens. With hidden tokens
left out, this mean is taken over the tokens that are shown, as in timm's average pooling.

Importing this module registers the architecture. transformers_config.py gives its options.
"""

from functools import partial
from typing import Any, Literal

import torch
from timm.layers import GluMlp, LayerNorm, Mlp
from timm.models import VisionTransformer, register_model
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn


class _ClassAndPatches(VisionTransformer):  # type: ignore[misc]
    """A VisionTransformer whose head reads the class token and the mean of the image's tokens, beside each other."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, global_pool="avg", fc_norm=False)
        self.head_hidden_size = 2 * self.embed_dim
        self.reset_classifier(self.num_classes)

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:  # noqa: ARG002  timm's signature
        return torch.cat([x[:, 0], x[:, self.num_prefix_tokens :].mean(dim=1)], dim=1)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:  # noqa: ARG002
        self.num_classes = num_classes
        weight = self.cls_token
        self.head = (
            nn.Linear(self.head_hidden_size, num_classes, device=weight.device, dtype=weight.dtype)
            if num_classes
            else nn.Identity()
        )


_HEADS = {
    "class": VisionTransformer,
    "class_and_distillation": VisionTransformerDistilled,
    "class_and_patches": _ClassAndPatches,
}


@register_model  # type: ignore[untyped-decorator]
def transformers_vit(
    *,
    mlp_width: int,
    norm_eps: float,
    swiglu: bool = False,
    head: Literal["class", "class_and_distillation", "class_and_patches"] = "class",
    embed_dim: int = 768,
    pretrained: bool = False,  # noqa: ARG001  there are no weights to download
    pretrained_cfg: object = None,  # noqa: ARG001
    pretrained_cfg_overlay: object = None,  # noqa: ARG001
    cache_dir: object = None,  # noqa: ARG001
    **arguments: Any,
) -> VisionTransformer:
    """Build the network.

    Args:
        mlp_width: numbers in the hidden layer of each MLP; with `swiglu`, numbers of the gate.
        norm_eps: epsilon of every norm.
        swiglu: whether the MLPs are gated.
        head: the tokens that the head reads: the class token; the mean of a head on each of the class and the
            distillation token; the class token beside the mean of the image's tokens.
        embed_dim: width of the network.
        pretrained, pretrained_cfg, pretrained_cfg_overlay, cache_dir: arguments that timm gives to every builder.
        arguments: of timm's VisionTransformer.
    """
    if head not in _HEADS:
        raise ValueError(f"head {head!r} is unknown; use {', '.join(_HEADS)}")
    width = 2 * mlp_width if swiglu else mlp_width
    return _HEADS[head](
        embed_dim=embed_dim,
        mlp_ratio=(width + 0.5) / embed_dim,  # timm rounds the product down
        mlp_layer=partial(GluMlp, gate_last=False) if swiglu else Mlp,
        norm_layer=partial(LayerNorm, eps=norm_eps),
        **({"act_layer": "silu"} if swiglu else {}),
        **arguments,
    )
