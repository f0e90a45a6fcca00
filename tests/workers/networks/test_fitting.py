"""A network's tensors are found in a file, and what is left over is harmless, ignored or named."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.networks.classifiers import build_classifier, load_classifier

_OPTIONS = {"patch_size": 4, "depth": 2, "embed_dim": 64, "num_heads": 1}
_VIT = Model(architecture="vit_tiny_patch16_224", options=_OPTIONS, checkpoint="FILE", classes=3)
_DEIT3 = _VIT.model_copy(update={"architecture": "deit3_small_patch16_224"})
_RESNET = Model(architecture="resnet10t", checkpoint="FILE", classes=3, masked_tokens="keep")
_SWIN = Model(
    architecture="swin_tiny_patch4_window7_224",
    options={"depths": (1, 2), "embed_dim": 24, "num_heads": (1, 2)},
    checkpoint="FILE",
    classes=3,
    masked_tokens="keep",
)
_SIDES = {_VIT.architecture: 16, _DEIT3.architecture: 16, _RESNET.architecture: 32, _SWIN.architecture: 56}
StateDict = dict[str, Any]


def _network(model: Model, side: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    network = build_classifier(model, side or _SIDES[model.architecture])
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network.requires_grad_(False)


def _prefixed(prefix: str, weights: StateDict) -> StateDict:
    return {prefix + name: value for name, value in weights.items()}


def _older(weights: StateDict) -> StateDict:
    """As DeiT III first called its tensors."""
    return {re.sub(r"ls(\d)\.gamma", r"gamma_\1", name): value for name, value in weights.items()}


def _load(content: StateDict, model: Model, folder: Path, **preprocess: Any) -> nn.Module:
    file = folder / "weights.pt"
    torch.save(content, file)
    side = _SIDES.get(model.architecture, 16)
    return load_classifier(
        model, Preprocess(resize=None, crop=side, **preprocess), file, recognise(file, None, url="FILE").key
    )


def _error(content: StateDict, model: Model, folder: Path) -> str:
    with pytest.raises(RequestError) as error:
        _load(content, model, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def _ignored(error: str) -> list[str]:
    """The patterns of the line that an error shows."""
    found = re.search(r"write (model\.ignore: \[.*?\])(?:$|, or| to use)", error)
    assert found, error
    patterns: list[str] = yaml.safe_load(found[1])["model.ignore"]
    return patterns


_HARMLESS: dict[str, tuple[Model, Callable[[nn.Module], StateDict]]] = {
    "a normaliser": (
        _VIT,
        lambda network: (
            _prefixed("model.", network.state_dict())
            | {
                "normalize.mean": torch.tensor([0.485, 0.456, 0.406]),
                "normalize.std": torch.tensor([0.229, 0.224, 0.225]),
            }
        ),
    ),
    "older names": (_DEIT3, lambda network: {"model": _older(network.state_dict())}),
    "older names, twice, under a prefix": (
        _DEIT3,
        lambda network: {
            f"module.{copy}model.{name}": value
            for copy in ("", "attacker.")
            for name, value in _older(network.state_dict()).items()
        },
    ),
    "layers that torch compiled or wrapped": (
        _DEIT3,
        lambda network: {
            "module." + name.replace("blocks.1.", "blocks.1._orig_mod._checkpoint_wrapped_module."): value
            for name, value in _older(network.state_dict()).items()
        },
    ),
    "what the network makes itself": (
        _SWIN,
        lambda network: network.state_dict() | {n: b for n, b in network.named_buffers() if b is not None},
    ),
    "counts of operations": (
        _RESNET,
        lambda network: network.state_dict() | {"total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)},
    ),
    "no counts of batches": (
        _RESNET,
        lambda network: {n: v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")},
    ),
}


@pytest.mark.parametrize("case", _HARMLESS)
def test_harmless_extras_change_nothing(case: str, tmp_path: Path) -> None:
    """The network that was saved is the network that is loaded."""
    model, save = _HARMLESS[case]
    network = _network(model)
    there, here = _load(save(network), model, tmp_path).state_dict(), network.state_dict()
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in here)


@pytest.mark.parametrize("model", [_VIT, _DEIT3])
def test_a_loss_of_lightning_is_ignored_on_request(model: Model, tmp_path: Path) -> None:
    """The error names it and shows the line; with that line the file loads. Nothing else is called wrong."""
    network = _network(model)
    weights = _prefixed("model.", _older(network.state_dict())) | {"criterion.weight": torch.ones(3)}
    content = {"state_dict": weights, "epoch": 3}
    error = _error(content, model, tmp_path)
    assert "the file has besides criterion.weight; if the network does not need criterion.weight to cl" in error
    assert error.endswith('write model.ignore: ["criterion.*"]')
    assert "architecture, options" not in error and "by its shapes" not in error
    loaded = _load(content, model.model_copy(update={"ignore": ("criterion.*",)}), tmp_path)
    assert torch.equal(loaded.state_dict()["head.weight"], network.state_dict()["head.weight"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.sampled_from(["", "model.", "module.net."]),
    extras=st.lists(st.text("ab[]*?.é\x1b!-", min_size=1, max_size=8), min_size=1, max_size=5, unique=True),
)
def test_the_line_shown_makes_the_file_load(prefix: str, extras: list[str], tmp_path: Path) -> None:
    """Whatever the tensors are called, beside the network or under its prefix, the patterns match them alone."""
    network = _network(_VIT)
    others: StateDict = {f"{prefix * (number % 2)}{name}": torch.ones(7) for number, name in enumerate(extras)}
    content = _prefixed(prefix, network.state_dict()) | others
    error = _error(content, _VIT, tmp_path)
    assert error.isprintable()
    loaded = _load(content, _VIT.model_copy(update={"ignore": tuple(_ignored(error))}), tmp_path)
    assert torch.equal(loaded.state_dict()["head.weight"], network.state_dict()["head.weight"])


def test_of_two_copies_the_job_chooses(tmp_path: Path) -> None:
    """Neither copy of other numbers votes unless the job says which; the error shows both lines."""
    one, other = _network(_VIT).state_dict(), {name: v + 1 for name, v in _network(_VIT).state_dict().items()}
    content = _prefixed("model.", one) | _prefixed("ema_model.", other)
    error = _error(content, _VIT, tmp_path)
    use_one = """model.ignore: ["ema_model.*"] to use the one under 'model.'"""
    use_other = """model.ignore: ["model.*"] to use the one under 'ema_model.'"""
    assert error.endswith(f"write {use_one}, or {use_other}")
    for ignored, weights in (("ema_model.*", one), ("model.*", other)):
        loaded = _load(content, _VIT.model_copy(update={"ignore": (ignored,)}), tmp_path)
        assert torch.equal(loaded.state_dict()["head.bias"], weights["head.bias"])


def test_a_name_that_is_there_is_no_pattern(tmp_path: Path) -> None:
    """A tensor of the file may be named as it is, whatever characters its name has."""
    content = _network(_VIT).state_dict() | {"loss[0].w": torch.ones(3)}
    loaded = _load(content, _VIT.model_copy(update={"ignore": ("loss[0].w",)}), tmp_path)
    assert loaded.state_dict().keys() == _network(_VIT).state_dict().keys()


@pytest.mark.parametrize(
    ("ignore", "says"),
    [
        (("criterion.*",), r"^model\.ignore: no tensor of FILE has a name like 'criterion\.\*'; correct the pattern"),
        (("norm.*", "HEAD.*"), r"^model\.ignore: no tensor of FILE has a name like 'HEAD\.\*'"),
        (("head.*",), r"lacks head\.bias and 1 other; the network needs what model\.ignore leaves out; .* 'head\.\*'$"),
        (("*",), r"the network needs what model\.ignore leaves out; correct the pattern '\*'$"),
    ],
)
def test_a_pattern_of_nothing_or_of_too_much_is_an_error(ignore: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """One line names the pattern."""
    error = _error(_network(_VIT).state_dict(), _VIT.model_copy(update={"ignore": ignore}), tmp_path)
    assert re.search(says, error), error


_OTHERS: dict[str, tuple[Model, int, str]] = {
    # saved by this network at this side: what the error about _VIT at 16 pixels says
    "classes": (_VIT.model_copy(update={"classes": 5}), 16, r"; set model\.classes: 5$"),
    "side": (_VIT, 32, r"pos_embed is .*; correct crop or upsample \(the file is of 32 x 32 pixels\)$"),
    "depth": (
        _VIT.model_copy(update={"options": _OPTIONS | {"depth": 3}}),
        16,
        r"has besides blocks\.2.*by its shapes the file is vit_tiny_patch16_224 with options .*'depth': 3",
    ),
    "distilled": (
        _VIT.model_copy(update={"architecture": "deit_tiny_distilled_patch16_224"}),
        16,
        r"by its shapes the file is deit_tiny_distilled_patch16_224 with options",
    ),
    "positions": (
        _VIT.model_copy(update={"options": _OPTIONS | {"no_embed_class": True}}),
        16,
        r"by its shapes the file is .*'no_embed_class': True",
    ),
    "no head": (
        _VIT.model_copy(update={"classes": 0}),
        16,
        r"lacks head\.bias.*it has no head, so it cannot classify",
    ),
    "another family": (_RESNET, 32, r"it has none of the network's names; correct architecture, or"),
}


@pytest.mark.parametrize("case", _OTHERS)
def test_another_network_is_named_by_what_is_wrong(case: str, tmp_path: Path) -> None:
    """One setting, where it explains all; else a network that the file loads into; else no guess. Never a pattern."""
    saved, side, says = _OTHERS[case]
    error = _error(_network(saved, side).state_dict(), _VIT, tmp_path)
    assert re.search(says, error), error
    assert "model.ignore" not in error


@pytest.mark.parametrize(
    "edit",
    [
        lambda weights: {name: value for name, value in weights.items() if name != "blocks.1.norm1.bias"},
        lambda weights: weights | {"head.weight": torch.ones(3, 64, 1)},
        lambda weights: weights | {"norm.weight": torch.ones(65)},
    ],
)
def test_no_guess_that_would_not_load(edit: Callable[[StateDict], StateDict], tmp_path: Path) -> None:
    """A file that loads into no ViT gets no guess, however alike the shapes are."""
    other = _VIT.model_copy(update={"options": _OPTIONS | {"embed_dim": 128}})
    weights = _network(_VIT).state_dict()
    assert "by its shapes the file is vit_tiny" in _error(weights, other, tmp_path)
    assert "by its shapes" not in _error(edit(weights), other, tmp_path)


def test_a_guess_keeps_the_heads_of_the_job(tmp_path: Path) -> None:
    """Shapes do not tell them, so a guess of its own would load, and vote otherwise."""
    job = _VIT.model_copy(update={"options": _OPTIONS | {"embed_dim": 64, "num_heads": 4}})
    deeper = job.model_copy(update={"options": job.options | {"depth": 3, "init_values": 1.0}})
    error = _error(_network(deeper).state_dict(), job, tmp_path)
    assert re.search(r"by its shapes the file is .*'num_heads': 4", error), error


def test_a_guess_says_what_to_ignore_with_it(tmp_path: Path) -> None:
    """Where the file has more than the guessed network, too, the line that leaves it out goes with the guess."""
    other = _VIT.model_copy(update={"options": _OPTIONS | {"depth": 1}})
    content = _network(_VIT).state_dict() | {"criterion.weight": torch.ones(3)}
    error = _error(content, other, tmp_path)
    assert re.search(
        r"by its shapes the file is .*'depth': 2.*, and write model\.ignore: \[\"criterion\.\*\"\]$", error
    )
    _load(content, _VIT.model_copy(update={"ignore": tuple(_ignored(error))}), tmp_path)


def test_a_second_head_is_no_second_network(tmp_path: Path) -> None:
    """A few tensors called as the network's own, under another prefix, are listed as others are."""
    content = _prefixed("model.", _network(_VIT).state_dict()) | {
        "aux.head.weight": torch.ones(3, 64),
        "aux.head.bias": torch.ones(3),
    }
    error = _error(content, _VIT, tmp_path)
    assert error.endswith('does not need these 2 tensors to classify, write model.ignore: ["aux.*"]')


def test_older_names_of_another_size(tmp_path: Path) -> None:
    """What keeps a file of older names from loading is its size, not its names; nothing is resampled."""
    error = _error(_older(_network(_DEIT3, 32).state_dict()), _DEIT3, tmp_path)
    assert "pixels: pos_embed is [1, 64, 64], expected [1, 16, 64]; correct crop or upsample" in error


def test_representations_between_network_and_head_are_not_dropped(tmp_path: Path) -> None:
    """timm's filter leaves `pre_logits` out, a layer of the first ViTs; here the error names it."""
    weights = _older(_network(_DEIT3).state_dict()) | {"pre_logits.fc.weight": torch.ones(64, 64)}
    assert "the file has besides pre_logits.fc.weight;" in _error(weights, _DEIT3, tmp_path)


def test_a_part_of_a_network_is_called_so(tmp_path: Path) -> None:
    """Of a network in several files one is none."""
    part: dict[str, Tensor] = dict(list(_network(_VIT).state_dict().items())[:9])
    model = _VIT.model_copy(update={"checkpoint": "model-00001-of-00002.safetensors"})
    assert "it is one of several files of a network" in _error(part, model, tmp_path)
