"""A network saved as the reference implementation saves it: github.com/MadryLab/smoothed-vit, on `robustness`.

There a network sits in a wrapper, in a model with a normaliser and an attacker that holds the same network again, in
DataParallel; the file is written with dill, beside the state of the training.
"""

import argparse
from pathlib import Path
from typing import Any

import dill
import torch
from torch import nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class _Normaliser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("new_mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("new_std", torch.tensor(STD)[:, None, None])


class _Wrapper(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class _Attacker(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalize = _Normaliser()
        self.model = model


class _AttackerModel(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalizer: nn.Module = _Normaliser()
        self.model = model
        self.attacker = _Attacker(model)


def state_dict(network: nn.Module, *, ablated: bool = False) -> dict[str, Any]:
    """As DataParallel names it; `ablated`: with the normaliser inside the one that ablates."""
    wrapped = _AttackerModel(_Wrapper(network))
    if ablated:
        normaliser = wrapped.normalizer
        wrapped.normalizer = nn.Module()
        wrapped.normalizer.normalizer = normaliser
    return dict(nn.DataParallel(wrapped).state_dict())


def save(network: nn.Module, path: Path, *, legacy: bool = False, **others: object) -> Path:
    """The whole file; its arguments are an object of a class that is no tensor."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    content = {
        "model": nn.DataParallel(_AttackerModel(_Wrapper(network))).state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5]).state_dict(),
        "epoch": 30,
        "amp": "N/A",
        "args": argparse.Namespace(arch="deit_tiny_patch16_224", eps=0.0),
        "types": [dict, argparse.Namespace],
    }
    torch.save(content | others, path, pickle_module=dill, _use_new_zipfile_serialization=not legacy)
    return path
