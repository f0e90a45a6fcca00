"""A checkpoint's weights find their way into the network, whatever they are called, or one line says why not."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.networks.classifiers import build_classifier, load_classifier
from tests.helpers import reference

_PREPROCESS = Preprocess(resize=None, crop=16, mean=reference.MEAN, std=reference.STD)
_OPTIONS = {"patch_size": 4, "depth": 2, "embed_dim": 64, "num_heads": 1}
_MODEL = Model(architecture="vit_tiny_patch16_224", options=_OPTIONS, checkpoint="none", classes=3)
StateDict = dict[str, Any]


def _network() -> nn.Module:
    torch.manual_seed(0)
    return build_classifier(_MODEL, 16)


def _prefixed(prefix: str) -> Callable[[nn.Module], StateDict]:
    return lambda network: {prefix + name: value for name, value in network.state_dict().items()}


def _averaged(network: nn.Module) -> StateDict:
    """The averaged weights beside others of the same names."""
    other = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    return {"state_dict": other, "state_dict_ema": _prefixed("module.")(network), "epoch": 3}


_LAYOUTS: dict[str, tuple[Callable[[nn.Module], StateDict], str]] = {
    "plain": (_prefixed(""), "torch file"),
    "data parallel": (_prefixed("module."), "torch file, prefix 'module.'"),
    "compiled in data parallel": (_prefixed("module._orig_mod."), "torch file, prefix 'module._orig_mod.'"),
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


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    """Whatever a training script calls them, the same weights arrive; the layout is told in words."""
    save, words = _LAYOUTS[layout]
    network, file = _network(), tmp_path / "weights.pt"
    torch.save(save(network), file)
    assert recognise(file, None).layout == words
    _same(_load(file), network)


@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_safetensors(prefix: str, tmp_path: Path) -> None:
    """So do they from safetensors, the network's copy and normaliser aside."""
    network, file = _network(), tmp_path / "weights.safetensors"
    safetensors.torch.save_file(_prefixed(prefix)(network), file)
    assert recognise(file, None) == (None, "safetensors" + (f", prefix {prefix!r}" if prefix else ""))
    _same(_load(file), network)


def test_unusual_names_are_listed(tmp_path: Path) -> None:
    """Not the network is wrong, but no state dict was named."""
    network, file = _network(), tmp_path / "weights.pt"
    torch.save({"student": network.state_dict(), "teacher": network.state_dict(), "epoch": 3}, file)
    with pytest.raises(RequestError, match=r"no state dict of a usual name; it has: student, teacher; name one as mod"):
        recognise(file, None)
    assert recognise(file, "teacher").key == "teacher"


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    """A file that ends too soon is told, not raised by the library that reads it."""
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(_prefixed("")(_network()), file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(RequestError, match=r"weights\.safetensors is not a complete safetensors file") as error:
        _load(file)
    assert "\n" not in str(error.value)


def _edited(edit: Callable[[StateDict], object]) -> Callable[[nn.Module], StateDict]:
    def save(network: nn.Module) -> StateDict:
        weights = reference.state_dict(network)
        edit(weights)
        return {"model": weights}

    return save


_OTHER_COPY = "module.attacker.model.model.head.bias"
_WRONG: dict[str, tuple[Callable[[nn.Module], StateDict], str]] = {
    "a copy that differs": (
        _edited(lambda weights: weights.update({_OTHER_COPY: torch.ones(3)})),
        f"the file has besides {_OTHER_COPY};",
    ),
    "something else": (
        _edited(lambda weights: weights.update({"module.extra": torch.ones(3)})),
        r"the file has besides module\.extra;",
    ),
    "a missing tensor": (
        _edited(lambda weights: [weights.pop(f"module.{copy}model.model.norm.bias") for copy in ("", "attacker.")]),
        r"the file lacks module\.model\.model\.norm\.bias;",
    ),
    "another mean": (
        _edited(lambda weights: weights.update({"module.normalizer.new_mean": torch.tensor([0.5, 0.4, 0.3])})),
        r"^preprocess\.mean: \[0\.4914, 0\.4822, 0\.4465\] is not what .*set it to \[0\.5, 0\.4, 0\.3\]$",
    ),
    "another std": (
        _edited(lambda weights: weights.update({"module.attacker.normalize.new_std": torch.ones(3, 1, 1)})),
        r"^preprocess\.std: .*attacker\.normalize\.new_std.*set it to \[1\.0, 1\.0, 1\.0\]$",
    ),
    "a mean of more channels": (
        _edited(lambda weights: weights.update({"module.normalizer.new_mean": torch.ones(1).expand(10**8)})),
        r"^preprocess\.mean: .*set it to three numbers$",
    ),
    "weights in whole numbers": (
        _edited(lambda weights: weights.update({"module.model.model.head.bias": torch.ones(3, dtype=torch.int8)})),
        r"module\.model\.model\.head\.bias holds torch\.int8 numbers, expected floating ones;",
    ),
    "a token of another rank": (
        _edited(lambda weights: weights.update({"module.model.model.cls_token": torch.ones(64)})),
        r"module\.model\.model\.cls_token is \[64\], expected \[1, 1, 64\];",
    ),
    "another network": (
        lambda _network: {"model": reference.state_dict(build_classifier(_OTHER, 32))},
        r"the file has besides module\.model\.model\.blocks\.2\.attn.*is \[192\], expected \[64\].*"
        r"by its shapes the file is vit_tiny_patch16_224 with options \{'patch_size': 8, 'depth': 3\}, 5 classes, 32 x",
    ),
}
_OTHER = Model(architecture="vit_tiny_patch16_224", options={"patch_size": 8, "depth": 3}, checkpoint="none", classes=5)


@pytest.mark.parametrize("case", _WRONG)
def test_what_does_not_fit_is_one_line(case: str, tmp_path: Path) -> None:
    """It names the tensors, or what the job should say."""
    save, says = _WRONG[case]
    torch.save(save(_network()), tmp_path / "weights.pt")
    with pytest.raises(RequestError) as error:
        _load(tmp_path / "weights.pt")
    assert re.search(says, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


def _load(file: Path) -> nn.Module:
    return load_classifier(_MODEL, _PREPROCESS, file, recognise(file, None).key)


def _same(loaded: nn.Module, network: nn.Module) -> None:
    there, here = loaded.state_dict(), network.state_dict()
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in here)
