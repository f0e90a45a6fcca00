"""Which VisionTransformer a state dict probably belongs to, by the shapes of its tensors.

What shapes do not show is assumed to be usual: heads of 64 numbers, timm's order of norms, GELU. misfits.py builds the
network and shows the hint only if the file loads into it.
Not covered: other families, hybrid stems, relative positions.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_STEM = "patch_embed.proj.weight"
_HEAD_WIDTH = 64
_RANKS = {"cls_token": 3, "dist_token": 3, "reg_token": 3, "pos_embed": 3, "head.weight": 2} | {
    "blocks.0.mlp.fc1.weight": 2
}
_SIZES = {  # width of the network: name in timm, its depth, side of a token
    192: ("tiny_patch16", 12, 16),
    384: ("small_patch16", 12, 16),
    768: ("base_patch16", 12, 16),
    1024: ("large_patch16", 24, 16),
    1280: ("huge_patch14", 32, 14),
}


class LikelyVit(NamedTuple):
    """What to write into a job.

    Attributes:
        architecture, options: arguments of timm.create_model.
        classes: number of classes; None without a head.
        side: side of the network's images in pixels; None if its positions do not show it.
    """

    architecture: str
    options: dict[str, Any]
    classes: int | None
    side: int | None

    def __str__(self) -> str:
        options = f" with options {self.options}" if self.options else ""
        classes = "" if self.classes is None else f", {self.classes} classes"
        return f"{self.architecture}{options}{classes}" + ("" if self.side is None else f", {self.side} x {self.side}")


def likely_vit(shapes: Mapping[str, tuple[int, ...]]) -> LikelyVit | None:
    """Name the nearest VisionTransformer of timm; None if the names are not those of a VisionTransformer.

    Args:
        shapes: the shape of each tensor, by name; the names may share a prefix.
    """
    stems = sorted((name for name in shapes if name.endswith(_STEM) and len(shapes[name]) == 4), key=len)
    if not stems:
        return None
    prefix = stems[0].removesuffix(_STEM)
    own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    if any(len(own.get(name, (1,) * rank)) != rank for name, rank in _RANKS.items()) or not own[_STEM][0]:
        return None
    width, token_px = own[_STEM][0], own[_STEM][2]
    depth = len({found[1] for name in own if (found := re.match(r"blocks\.(\d+)\.", name))})
    size, usual_depth, usual_token_px = _SIZES.get(width, _SIZES[min(_SIZES, key=lambda usual: abs(usual - width))])
    distilled = "dist_token" in own
    options: dict[str, Any] = {}
    if token_px != usual_token_px:
        options["patch_size"] = token_px
    if depth != usual_depth:
        options["depth"] = depth
    if width not in _SIZES:
        options |= {"embed_dim": width, "num_heads": max(1, width // _HEAD_WIDTH)}
    options |= _details(own, width)
    head = own.get("head.weight")
    return LikelyVit(
        f"deit_{size.replace('_', '_distilled_')}_224" if distilled else f"vit_{size}_224",
        options,
        None if head is None else head[0],
        _side(own, token_px),
    )


def _details(own: Mapping[str, tuple[int, ...]], width: int) -> dict[str, Any]:
    """Options that follow from the presence or the shape of a tensor."""
    options: dict[str, Any] = {}
    if (mlp := own.get("blocks.0.mlp.fc1.weight")) and mlp[0] != 4 * width:
        options["mlp_ratio"] = mlp[0] / width
    if "blocks.0.attn.qkv.weight" in own and "blocks.0.attn.qkv.bias" not in own:
        options["qkv_bias"] = False
    if "blocks.0.ls1.gamma" in own or "blocks.0.gamma_1" in own:  # DeiT III's first name for it
        options["init_values"] = 1.0
    if "blocks.0.attn.q_norm.weight" in own:
        options["qk_norm"] = True
    if "reg_token" in own:
        options["reg_tokens"] = own["reg_token"][1]
    if "cls_token" not in own:
        options["class_token"] = False
    if "fc_norm.weight" in own or "cls_token" not in own:
        options["global_pool"] = "avg"
    if "fc_norm.weight" not in own and options.get("global_pool"):
        options["fc_norm"] = False
    if _prefix_tokens(own) and _embedded_prefix(own) == 0:
        options["no_embed_class"] = True
    return options


def _prefix_tokens(own: Mapping[str, tuple[int, ...]]) -> int:
    return sum(own[name][1] for name in ("cls_token", "dist_token", "reg_token") if name in own)


def _embedded_prefix(own: Mapping[str, tuple[int, ...]]) -> int | None:
    """How many prefix tokens have a position: all or none, whichever leaves a square number of positions."""
    if "pos_embed" not in own:
        return None
    positions = own["pos_embed"][1]
    candidates = (_prefix_tokens(own), 0)
    squares = {side**2 for side in range(math.isqrt(positions) + 1)}
    return next((count for count in candidates if positions - count in squares), None)


def _side(own: Mapping[str, tuple[int, ...]], token_px: int) -> int | None:
    embedded = _embedded_prefix(own)
    return None if embedded is None else math.isqrt(own["pos_embed"][1] - embedded) * token_px
