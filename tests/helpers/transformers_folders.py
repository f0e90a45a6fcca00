"""Small networks of Hugging Face transformers with random weights, saved to folders as for the hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from tests.helpers import jobs

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "id2label": {0: "cat", 1: "dog", 2: "fish"},
    "label2id": {"cat": 0, "dog": 1, "fish": 2},
}
_VIT = SMALL | {"intermediate_size": 48}
_SQUARE = {"size": {"height": 16, "width": 16}}
_CROPPED = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}


def _vit(**changes: Any) -> nn.Module:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**_VIT | changes))


def _deit(**changes: Any) -> nn.Module:
    return transformers.DeiTForImageClassification(transformers.DeiTConfig(**_VIT | changes))


def _deit_with_teacher(**changes: Any) -> nn.Module:
    return transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**_VIT | changes))


def _dinov2(**changes: Any) -> nn.Module:
    return transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**SMALL | changes))


def _with_registers(**changes: Any) -> nn.Module:
    config = transformers.Dinov2WithRegistersConfig(**SMALL | changes)
    return transformers.Dinov2WithRegistersForImageClassification(config)


Make = Callable[..., nn.Module]
NETWORKS: dict[str, tuple[Make, dict[str, Any]]] = {
    "vit": (_vit, {}),
    "vit without biases of queries": (_vit, {"qkv_bias": False}),
    "vit with large epsilon": (_vit, {"layer_norm_eps": 0.1}),
    "vit with approximate gelu": (_vit, {"hidden_act": "gelu_new"}),
    "vit with quick gelu": (_vit, {"hidden_act": "quick_gelu"}),
    "vit with relu": (_vit, {"hidden_act": "relu"}),
    "vit with silu": (_vit, {"hidden_act": "silu"}),
    "deit": (_deit, {}),
    "deit with teacher": (_deit_with_teacher, {}),
    "dinov2": (_dinov2, {}),
    "dinov2 with swiglu": (_dinov2, {"use_swiglu_ffn": True}),
    "dinov2 of larger images": (_dinov2, {"image_size": 28}),
    "dinov2 of smaller images": (_dinov2, {"image_size": 12, "mlp_ratio": 3}),
    "registers": (_with_registers, {}),
    "registers with swiglu": (_with_registers, {"use_swiglu_ffn": True, "num_register_tokens": 2}),
    "registers of larger images": (_with_registers, {"image_size": 28}),
    "registers of smaller images": (_with_registers, {"image_size": 12}),
}
"""Each network: who makes it, and what is unusual in its config."""


def processor_of(name: str) -> Any:
    """The image processor that the hub's networks of this type have."""
    if name.startswith("vit"):
        return transformers.ViTImageProcessorPil(**_SQUARE)
    if name.startswith("deit"):
        return transformers.DeiTImageProcessorPil(size={"height": 20, "width": 20}, crop_size=_SQUARE["size"])
    return transformers.BitImageProcessorPil(**_CROPPED)


def network_of(name: str) -> nn.Module:
    """A network whose every tensor is random and matters."""
    torch.manual_seed(0)
    make, changes = NETWORKS[name]
    network = make(**changes).eval().requires_grad_(False)
    for tensor_name, tensor in network.named_parameters():
        nn.init.normal_(tensor, std=0.3)
        if "norm" in tensor_name and tensor_name.endswith("weight"):
            tensor.add_(1)
    return network


def save(folder: Path, name: str) -> nn.Module:
    """Save a network and its processor to a folder, and return the network."""
    network = network_of(name)
    network.save_pretrained(folder)
    processor_of(name).save_pretrained(folder)
    return network


def write_short_job(folder: Path, checkpoint: str, **changes: Any) -> Path:
    """A job that says no more of its model than the checkpoint."""
    path = jobs.write_job(folder, model={"checkpoint": checkpoint} | changes.pop("model", {}), **changes)
    text = path.read_text()
    if "preprocess" not in changes:
        text = text.replace("preprocess:\n  crop: 16\n  resize: null\n", "")
        assert "preprocess" not in text
    path.write_text(text)
    return path
