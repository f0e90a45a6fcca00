"""The tensors of a checkpoint of Hugging Face transformers, by timm's names.

    vit.encoder.layer.3.attention.attention.query.weight      a third of blocks.3.attn.qkv.weight
    dinov2.encoder.layer.3.layer_scale1.lambda1               blocks.3.ls1.gamma
    classifier.weight                                         head.weight

Covered: ViT, DeiT and DINOv2 with and without registers, by the names of files on the hub and by those of the modules
of transformers 5. Not covered: the network that they belong to (transformers_config.py).
"""

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from timm.models import VisionTransformer
from torch import Tensor, nn

from smoothcert.workers.networks.checkpoints import TRANSFORMERS_STEM

_LAYER = re.compile(r"(?:encoder\.)?layers?\.(\d+)\.(.*)")
_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_HEADS = {"classifier": "head", "cls_classifier": "head", "distillation_classifier": "head_dist"}
_UNUSED = re.compile(r"embeddings\.mask_token|pooler\.dense\.(?:weight|bias)")  # not used to classify
_MODULES = {  # of a layer
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "norm1": "norm1",
    "norm2": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "mlp.down_proj": "mlp.fc2",
}
_SCALES = {"layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma"}
_PARTS = {  # of a tensor, in order
    "attention.attention.query": ("attn.qkv", 0),
    "attention.attention.key": ("attn.qkv", 1),
    "attention.attention.value": ("attn.qkv", 2),
    "attention.q_proj": ("attn.qkv", 0),
    "attention.k_proj": ("attn.qkv", 1),
    "attention.v_proj": ("attn.qkv", 2),
    "mlp.gate_proj": ("mlp.fc1", 0),
    "mlp.up_proj": ("mlp.fc1", 1),
}
_NUM_PARTS = {"attn.qkv": 3, "mlp.fc1": 2}


def with_timm_names(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Give the tensors of transformers timm's names; tensors that are not known keep their names.

    DINOv2 is trained on larger images than it usually classifies. transformers resamples its positions, and so does
    this function.

    Args:
        weights: by the names of the file.
        network: the VisionTransformer that they may belong to.
    """
    base = next((name.removesuffix(TRANSFORMERS_STEM) for name in weights if name.endswith(TRANSFORMERS_STEM)), None)
    if base is None or not isinstance(network, VisionTransformer):
        return dict(weights)
    outer = base[: base.rstrip(".").rfind(".") + 1]  # `module.` in `module.vit.embeddings...`
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[int, str]] = {}
    for name, tensor in weights.items():
        inside = name.removeprefix(base) if name.startswith(base) else None
        if inside is not None and (_UNUSED.fullmatch(inside) or not tensor.numel()):
            continue
        if inside is not None and (part := _part_of(inside)) is not None:
            parts.setdefault(part[0], {})[part[1]] = name
            continue
        renamed[_name_of(inside, name.removeprefix(outer), network) or name] = tensor
    for name, sources in parts.items():
        if len(sources) == _NUM_PARTS[name.split(".", 2)[2].rpartition(".")[0]] and _fit_together(sources, weights):
            renamed[name] = torch.cat([weights[sources[number]] for number in sorted(sources)])
        else:
            renamed |= {source: weights[source] for source in sources.values()}
    return _with_positions_of(renamed, network)


def _name_of(inside: str | None, outside: str, network: VisionTransformer) -> str | None:
    """timm's name of a tensor, or None.

    Args:
        inside: its name in the network without a head; None if it is not there.
        outside: its name in the network with a head.
    """
    if inside is None:
        module, _, kind = outside.rpartition(".")
        return f"{_HEADS[module]}.{kind}" if module in _HEADS else None
    if inside == "embeddings.distillation_token":  # without a head of its own it is like a register
        return "dist_token" if hasattr(network, "dist_token") else "reg_token"
    if (layer := _LAYER.fullmatch(inside)) is None:
        return _NAMES.get(inside)
    if layer[2] in _SCALES:
        return f"blocks.{layer[1]}.{_SCALES[layer[2]]}"
    module, _, kind = layer[2].rpartition(".")
    return f"blocks.{layer[1]}.{_MODULES[module]}.{kind}" if module in _MODULES else None


def _part_of(inside: str) -> tuple[str, int] | None:
    """If timm joins a tensor with others: the name of the joined tensor, and the position in it."""
    if (layer := _LAYER.fullmatch(inside)) is None:
        return None
    module, _, kind = layer[2].rpartition(".")
    if module not in _PARTS:
        return None
    name, position = _PARTS[module]
    return f"blocks.{layer[1]}.{name}.{kind}", position


def _fit_together(sources: Mapping[int, str], weights: Mapping[str, Tensor]) -> bool:
    return len({(weights[name].shape, weights[name].dtype) for name in sources.values()}) == 1 and all(
        weights[name].dim() for name in sources.values()
    )


def _with_positions_of(weights: dict[str, Tensor], network: VisionTransformer) -> dict[str, Tensor]:
    """Fit DINOv2's positions to the network's images, and add the class token's position if timm has none for it."""
    positions, token = weights.get("pos_embed"), weights.get("cls_token")
    if (
        positions is None
        or token is None
        or "blocks.0.ls1.gamma" not in weights
        or not positions.dim() == token.dim() == 3
    ):
        return weights
    token, positions = token.float(), positions.float()
    own, of_image = positions[:, :1], positions[:, 1:]
    if of_image.shape[1] == math.isqrt(of_image.shape[1]) ** 2:
        weights["pos_embed"] = torch.cat(
            [own, _resampled(of_image, network.patch_embed.grid_size, antialias="reg_token" in weights)], dim=1
        )  # transformers antialiases with registers only
    if network.no_embed_class and own.shape == token.shape:
        weights |= {"cls_token": token + own, "pos_embed": weights["pos_embed"][:, 1:]}
    return weights


def _resampled(positions_1TD: Tensor, grid: tuple[int, int], *, antialias: bool) -> Tensor:
    """float32 positions for another number of tokens, as transformers computes them."""
    side = math.isqrt(positions_1TD.shape[1])
    if (side, side) == tuple(grid):
        return positions_1TD
    square_1DHW = positions_1TD.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resampled = F.interpolate(square_1DHW, size=grid, mode="bicubic", align_corners=False, antialias=antialias)
    return resampled.flatten(2).transpose(1, 2)
