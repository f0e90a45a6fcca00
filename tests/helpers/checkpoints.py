"""Small networks, the checkpoints that training scripts save of them, and what loading such a file gives."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.networks.classifiers import build_classifier, load_classifier
from tests.helpers import reference

OPTIONS = {"patch_size": 4, "depth": 2, "embed_dim": 64, "num_heads": 1}
VIT = Model(architecture="vit_tiny_patch16_224", options=OPTIONS, checkpoint="FILE", classes=3)
DEIT3 = VIT.model_copy(update={"architecture": "deit3_small_patch16_224"})
RESNET = Model(architecture="resnet10t", checkpoint="FILE", classes=3, masked_tokens="keep")
SWIN = Model(
    architecture="swin_tiny_patch4_window7_224",
    options={"depths": (1, 2), "embed_dim": 24, "num_heads": (1, 2)},
    checkpoint="FILE",
    classes=3,
    masked_tokens="keep",
)
_SIDES = {VIT.architecture: 16, DEIT3.architecture: 16, RESNET.architecture: 32, SWIN.architecture: 56}
StateDict = dict[str, Any]


def network_of(model: Model, side: int | None = None) -> nn.Module:
    """The network of a model with seeded random weights."""
    torch.manual_seed(0)
    network = build_classifier(model, side or _SIDES[model.architecture])
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network.requires_grad_(False)


def prefixed(prefix: str, weights: StateDict) -> StateDict:
    """The tensors under longer names."""
    return {prefix + name: value for name, value in weights.items()}


def older(weights: StateDict) -> StateDict:
    """As DeiT III first called its tensors."""
    return {re.sub(r"ls(\d)\.gamma", r"gamma_\1", name): value for name, value in weights.items()}


def load(content: StateDict, model: Model, folder: Path, **preprocess: Any) -> nn.Module:
    """The job's network with the weights of a file of this content."""
    file = folder / "weights.pt"
    torch.save(content, file)
    side = _SIDES.get(model.architecture, 16)
    return load_classifier(
        model, Preprocess(resize=None, crop=side, **preprocess), file, recognise(file, None, url="FILE").key
    )


def error_of(content: StateDict, model: Model, folder: Path, **preprocess: Any) -> str:
    """The line that loading such a file ends with."""
    with pytest.raises(RequestError) as error:
        load(content, model, folder, **preprocess)
    assert "\n" not in str(error.value)
    return str(error.value)


def patterns_shown(error: str) -> list[str]:
    """The patterns of the line that an error shows."""
    found = re.search(r"write (model\.ignore: \[.*?\])(?:$|, or| to use)", error)
    assert found, error
    patterns: list[str] = yaml.safe_load(found[1])["model.ignore"]
    return patterns


def has_weights_of(loaded: nn.Module, network: nn.Module) -> bool:
    """Whether every tensor is there, bit by bit."""
    there, here = loaded.state_dict(), network.state_dict()
    return there.keys() == here.keys() and all(torch.equal(there[name], here[name]) for name in here)


def _averaged(network: nn.Module) -> StateDict:
    """The averaged weights beside others of the same names."""
    other = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    return {"state_dict": other, "state_dict_ema": prefixed("module.", network.state_dict()), "epoch": 3}


LAYOUTS: dict[str, tuple[Callable[[nn.Module], StateDict], str]] = {
    "plain": (lambda network: network.state_dict(), "torch file"),
    "data parallel": (lambda network: prefixed("module.", network.state_dict()), "torch file, prefix 'module.'"),
    "compiled in data parallel": (
        lambda network: prefixed("module._orig_mod.", network.state_dict()),
        "torch file, prefix 'module._orig_mod.'",
    ),
    "averaged": (_averaged, "torch file, EMA weights of 'state_dict_ema', prefix 'module.'"),
    "averaged by torch": (
        lambda network: {"model_ema": torch.optim.swa_utils.AveragedModel(network).state_dict()},
        "torch file, EMA weights of 'model_ema', prefix 'module.'",
    ),
    "reference": (
        lambda network: {"model": reference.state_dict(network), "epoch": 3},
        "reference layout, state dict 'model', prefix 'module.model.model.'",
    ),
    "reference, saved after ablating": (
        lambda network: {"model": reference.state_dict(network, ablated=True)},
        "reference layout, state dict 'model', prefix 'module.model.model.'",
    ),
}
"""What scripts save of a network, and how `plan` describes the file."""
