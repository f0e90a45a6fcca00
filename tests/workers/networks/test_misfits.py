"""If a checkpoint does not fit, one line says what is wrong and what to write into the job."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from smoothcert.manifests.job import Model
from tests.helpers import reference
from tests.helpers.checkpoints import (
    DEIT3,
    OPTIONS,
    RESNET,
    VIT,
    StateDict,
    error_of,
    load,
    network_of,
    older,
    patterns_shown,
    prefixed,
)


def _edited(edit: Callable[[StateDict], object]) -> Callable[[nn.Module], StateDict]:
    def save(network: nn.Module) -> StateDict:
        weights = reference.state_dict(network)
        edit(weights)
        return {"model": weights}

    return save


_OTHER_COPY = "module.attacker.model.model.head.bias"


_OTHER = Model(architecture="vit_tiny_patch16_224", options={"patch_size": 8, "depth": 3}, checkpoint="none", classes=5)


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
    "weights in whole numbers": (
        _edited(lambda weights: weights.update({"module.model.model.head.bias": torch.ones(3, dtype=torch.int8)})),
        r"module\.model\.model\.head\.bias holds torch\.int8 numbers, expected floating ones;",
    ),
    "a token of another rank": (
        _edited(lambda weights: weights.update({"module.model.model.cls_token": torch.ones(64)})),
        r"module\.model\.model\.cls_token is \[64\], expected \[1, 1, 64\];",
    ),
    "another network": (
        lambda _network: {"model": reference.state_dict(network_of(_OTHER, 32))},
        r"the file has besides module\.model\.model\.blocks\.2\.attn.*is \[192\], expected \[64\].*"
        r"by its shapes the file is vit_tiny_patch16_224 with options \{'patch_size': 8, 'depth': 3\}, 5 classes, 32 x",
    ),
}


@pytest.mark.parametrize("case", _WRONG)
def test_error_names_the_tensors_that_do_not_fit(case: str, tmp_path: Path) -> None:
    """In a file of the reference implementation, which holds its network twice and a normaliser."""
    save, says = _WRONG[case]
    error = error_of(save(network_of(VIT)), VIT, tmp_path, mean=reference.MEAN, std=reference.STD)
    assert re.search(says, error), error


@pytest.mark.parametrize("model", [VIT, DEIT3])
def test_error_shows_how_to_ignore_a_loss_of_lightning(model: Model, tmp_path: Path) -> None:
    """With the line that it shows the file loads, and it names nothing else as wrong."""
    network = network_of(model)
    weights = prefixed("model.", older(network.state_dict())) | {"criterion.weight": torch.ones(3)}
    content = {"state_dict": weights, "epoch": 3}
    error = error_of(content, model, tmp_path)
    assert "the file has besides criterion.weight; if the network does not need criterion.weight to cl" in error
    assert error.endswith('write model.ignore: ["criterion.*"]')
    assert "architecture, options" not in error and "by its shapes" not in error
    loaded = load(content, model.model_copy(update={"ignore": ("criterion.*",)}), tmp_path)
    assert torch.equal(loaded.state_dict()["head.weight"], network.state_dict()["head.weight"])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.sampled_from(["", "model.", "module.net."]),
    extras=st.lists(st.text("ab[]*?.é\x1b!-", min_size=1, max_size=8), min_size=1, max_size=5, unique=True),
)
def test_the_patterns_shown_make_the_file_load(prefix: str, extras: list[str], tmp_path: Path) -> None:
    """They match only the tensors that are not the network's, whatever these are called."""
    network = network_of(VIT)
    others: StateDict = {f"{prefix * (number % 2)}{name}": torch.ones(7) for number, name in enumerate(extras)}
    content = prefixed(prefix, network.state_dict()) | others
    error = error_of(content, VIT, tmp_path)
    assert error.isprintable()
    loaded = load(content, VIT.model_copy(update={"ignore": tuple(patterns_shown(error))}), tmp_path)
    assert torch.equal(loaded.state_dict()["head.weight"], network.state_dict()["head.weight"])


def test_error_shows_how_to_choose_between_two_copies(tmp_path: Path) -> None:
    """If a file holds two networks with different numbers, neither votes until the job chooses one."""
    one, other = network_of(VIT).state_dict(), {name: v + 1 for name, v in network_of(VIT).state_dict().items()}
    content = prefixed("model.", one) | prefixed("ema_model.", other)
    error = error_of(content, VIT, tmp_path)
    use_one = """model.ignore: ["ema_model.*"] to use the one under 'model.'"""
    use_other = """model.ignore: ["model.*"] to use the one under 'ema_model.'"""
    assert error.endswith(f"write {use_one}, or {use_other}")
    for ignored, weights in (("ema_model.*", one), ("model.*", other)):
        loaded = load(content, VIT.model_copy(update={"ignore": (ignored,)}), tmp_path)
        assert torch.equal(loaded.state_dict()["head.bias"], weights["head.bias"])


_OTHERS: dict[str, tuple[Model, int, str]] = {
    # saved by this network at this side: what the error about VIT at 16 pixels says
    "classes": (VIT.model_copy(update={"classes": 5}), 16, r"; set model\.classes: 5$"),
    "side": (VIT, 32, r"pos_embed is .*; correct crop or upsample \(the file is of 32 x 32 pixels\)$"),
    "depth": (
        VIT.model_copy(update={"options": OPTIONS | {"depth": 3}}),
        16,
        r"has besides blocks\.2.*by its shapes the file is vit_tiny_patch16_224 with options .*'depth': 3",
    ),
    "distilled": (
        VIT.model_copy(update={"architecture": "deit_tiny_distilled_patch16_224"}),
        16,
        r"by its shapes the file is deit_tiny_distilled_patch16_224 with options",
    ),
    "positions": (
        VIT.model_copy(update={"options": OPTIONS | {"no_embed_class": True}}),
        16,
        r"by its shapes the file is .*'no_embed_class': True",
    ),
    "no head": (
        VIT.model_copy(update={"classes": 0}),
        16,
        r"lacks head\.bias.*it has no head, so it cannot classify",
    ),
    "another family": (RESNET, 32, r"it has none of the network's names; correct architecture, or"),
}


@pytest.mark.parametrize("case", _OTHERS)
def test_error_names_the_setting_or_the_likely_network(case: str, tmp_path: Path) -> None:
    """
    It names one setting if that explains everything, else a network that the file loads into, else nothing. It never
    shows a pattern.
    """
    saved, side, says = _OTHERS[case]
    error = error_of(network_of(saved, side).state_dict(), VIT, tmp_path)
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
def test_error_names_no_network_that_would_not_load(edit: Callable[[StateDict], StateDict], tmp_path: Path) -> None:
    """If the file loads into no ViT, none is named, however similar the shapes are."""
    other = VIT.model_copy(update={"options": OPTIONS | {"embed_dim": 128}})
    weights = network_of(VIT).state_dict()
    assert "by its shapes the file is vit_tiny" in error_of(weights, other, tmp_path)
    assert "by its shapes" not in error_of(edit(weights), other, tmp_path)


def test_the_likely_network_has_as_many_heads_as_the_job_says(tmp_path: Path) -> None:
    """Shapes do not show the number of heads. A wrong number would load and vote differently."""
    job = VIT.model_copy(update={"options": OPTIONS | {"embed_dim": 64, "num_heads": 4}})
    deeper = job.model_copy(update={"options": job.options | {"depth": 3, "init_values": 1.0}})
    error = error_of(network_of(deeper).state_dict(), job, tmp_path)
    assert re.search(r"by its shapes the file is .*'num_heads': 4", error), error


def test_error_shows_what_to_ignore_beside_the_likely_network(tmp_path: Path) -> None:
    """If the file also has more than the likely network, the error has the line that ignores it."""
    other = VIT.model_copy(update={"options": OPTIONS | {"depth": 1}})
    content = network_of(VIT).state_dict() | {"criterion.weight": torch.ones(3)}
    error = error_of(content, other, tmp_path)
    assert re.search(
        r"by its shapes the file is .*'depth': 2.*, and write model\.ignore: \[\"criterion\.\*\"\]$", error
    )
    load(content, VIT.model_copy(update={"ignore": tuple(patterns_shown(error))}), tmp_path)


def test_a_second_head_is_not_a_second_network(tmp_path: Path) -> None:
    """A few tensors with names of the network under another prefix are treated like any others."""
    content = prefixed("model.", network_of(VIT).state_dict()) | {
        "aux.head.weight": torch.ones(3, 64),
        "aux.head.bias": torch.ones(3),
    }
    error = error_of(content, VIT, tmp_path)
    assert error.endswith('does not need these 2 tensors to classify, write model.ignore: ["aux.*"]')


def test_error_about_a_file_with_older_names_is_about_its_size(tmp_path: Path) -> None:
    """Older names are no reason to refuse a file, and positions are not resampled."""
    error = error_of(older(network_of(DEIT3, 32).state_dict()), DEIT3, tmp_path)
    assert "pixels: pos_embed is [1, 64, 64], expected [1, 16, 64]; correct crop or upsample" in error


def test_error_names_a_layer_that_timm_would_drop(tmp_path: Path) -> None:
    """timm's filter drops `pre_logits`, a layer of the first ViTs, without a word."""
    weights = older(network_of(DEIT3).state_dict()) | {"pre_logits.fc.weight": torch.ones(64, 64)}
    assert "the file has besides pre_logits.fc.weight;" in error_of(weights, DEIT3, tmp_path)


def test_error_says_that_the_file_is_one_part_of_several(tmp_path: Path) -> None:
    """One file of a network in several files is not a network."""
    part: dict[str, Tensor] = dict(list(network_of(VIT).state_dict().items())[:9])
    model = VIT.model_copy(update={"checkpoint": "model-00001-of-00002.safetensors"})
    assert "it is one of several files of a network" in error_of(part, model, tmp_path)


@pytest.mark.parametrize(
    ("ignore", "says"),
    [
        (("head.*",), r"lacks head\.bias and 1 other; the network needs what model\.ignore leaves out; .* 'head\.\*'$"),
        (("*",), r"the network needs what model\.ignore leaves out; correct the pattern '\*'$"),
    ],
)
def test_error_names_a_pattern_that_matches_too_much(ignore: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """A pattern must not leave out what the network needs."""
    error = error_of(network_of(VIT).state_dict(), VIT.model_copy(update={"ignore": ignore}), tmp_path)
    assert re.search(says, error), error
