"""timm's own filters turn older names into today's, and no number of the file changes."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smoothcert.manifests.job import Model
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.networks.older_names import filter_of, rename

StateDict = dict[str, Tensor]


def _deit3(weights: StateDict) -> StateDict:
    return {re.sub(r"ls(\d)\.gamma", r"gamma_\1", name): value for name, value in weights.items()}


def _convnext(weights: StateDict) -> StateDict:
    """As its authors published it; their linear layers are convolutions in timm's small ones."""
    names = [
        (r"^stem", "downsample_layers.0"),
        (r"stages\.(\d)\.blocks", r"stages.\1"),
        (r"stages\.(\d)\.downsample", r"downsample_layers.\1"),
        ("conv_dw", "dwconv"),
        (r"mlp\.fc", "pwconv"),
        (r"head\.norm", "norm"),
        (r"head\.fc", "head"),
    ]
    older = {}
    for name, value in weights.items():
        for today, then in names:
            name = re.sub(today, then, name)
        older[name] = value.flatten(1) if "pwconv" in name and value.ndim == 4 else value
    return older


def _swin(weights: StateDict) -> StateDict:
    older = {name.replace("head.fc", "head"): value for name, value in weights.items()}
    return {
        re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name): value
        for name, value in older.items()
    }


def _densenet(weights: StateDict) -> StateDict:
    """As torchvision first published it, when batch norm did not count."""
    return {
        re.sub(r"(denselayer\d+\.)(norm|conv)(\d)", r"\1\2.\3", name): value
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked")
    }


def _xcit(weights: StateDict) -> StateDict:
    """Its authors have one matrix for queries, keys and values, which timm has in three."""
    older = {}
    for name, value in weights.items():
        if "cls_attn" in name and (found := re.search(r"\.attn\.([qkv])\.", name)):
            if found[1] == "q":
                parts = [weights[name.replace(".q.", f".{part}.")] for part in "qkv"]
                older[name.replace(".q.", ".qkv.")] = torch.cat(parts)
        else:
            older[name.replace("pos_embed.", "pos_embeder.")] = value
    return older


_SMALL_VIT = {"patch_size": 4, "depth": 2, "embed_dim": 64, "num_heads": 1}
_CASES: dict[str, tuple[str, dict[str, Any], int, Callable[[StateDict], StateDict]]] = {
    "DeiT III": ("deit3_small_patch16_224", _SMALL_VIT, 16, _deit3),
    "DeiT III as a plain ViT": (
        "vit_small_patch16_224",
        _SMALL_VIT | {"init_values": 1.0, "no_embed_class": True},
        16,
        _deit3,
    ),
    "ConvNeXt": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)}, 32, _convnext),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        {"depths": (1, 2), "embed_dim": 24, "num_heads": (1, 2)},
        56,
        _swin,
    ),
    "DenseNet": ("densenet121", {"block_config": (2, 2), "growth_rate": 8}, 64, _densenet),
    "XCiT": ("xcit_nano_12_p16_224", {"depth": 1}, 32, _xcit),
}


def _model(architecture: str, options: dict[str, Any]) -> Model:
    return Model(architecture=architecture, options=options, checkpoint="none", classes=5, masked_tokens="keep")


def _network(model: Model, side: int) -> nn.Module:
    network = build_classifier(model, side)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.normal_()
    return network


@pytest.mark.parametrize("case", _CASES)
def test_older_names_give_the_same_weights(case: str) -> None:
    """Renamed, reshaped and split tensors are equal bit by bit, and every tensor of the file is used."""
    architecture, options, side, older = _CASES[case]
    model = _model(architecture, options)
    own = _network(model, side).state_dict()
    file = {name: value.clone() for name, value in older(own).items()}
    assert file.keys() != own.keys()
    filter_fn = filter_of(model)
    assert filter_fn is not None
    renamed = rename(file, build_classifier(model, side), filter_fn)
    assert all(name.endswith("num_batches_tracked") for name in own.keys() - renamed.tensors.keys())
    assert all(torch.equal(value, own[name]) for name, value in renamed.tensors.items())
    assert renamed.sources == file.keys()


def test_a_tensor_that_timm_resamples_is_left_out() -> None:
    """Resampled positions and patches are not the file's own numbers. All other tensors are taken."""
    model = _model("deit3_small_patch16_224", _SMALL_VIT)
    larger = _network(_model("deit3_small_patch16_224", _SMALL_VIT | {"patch_size": 8}), 64).state_dict()
    network, filter_fn = build_classifier(model, 16), filter_of(model)
    assert filter_fn is not None
    renamed = rename(_deit3(larger), network, filter_fn)
    assert network.state_dict().keys() - renamed.tensors.keys() == {"pos_embed", "patch_embed.proj.weight"}


_ODD: dict[str, Callable[[StateDict], Any]] = {
    "adds two": lambda file: file | {"a": file["a"] + file["b"]},
    "changes a number": lambda file: file | {"a": file["a"] * 2},
    "changes it in place": lambda file: file | {"a": file["a"].mul_(2)},
    "makes zeros": lambda file: file | {"a": torch.zeros(4)},
    "takes a part": lambda file: file | {"a": file["long"][:4]},
    "takes one twice": lambda file: {"a": file["a"], "b": file["a"]},
    "rounds": lambda file: file | {"a": file["a"].half()},
    "goes by the order": lambda file: dict(zip(("a", "b"), file.values(), strict=False)) | {"b": file["a"]},
    "fails": lambda file: file["none"],
}


@pytest.mark.parametrize("what", _ODD)
def test_a_tensor_that_a_filter_changes_is_left_out(what: str) -> None:
    """A filter may rename, reshape and split tensors, and nothing else."""
    network = nn.Module()
    network.a, network.b = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
    file = {"a": torch.rand(4), "b": torch.rand(4), "long": torch.rand(8)}
    assert "a" not in rename(file, network, _ODD[what]).tensors
