"""Networks without tokens to drop, against a plain loop over timm's own forward."""

import copy
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.shown import Masks
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.smoothed_dense import SmoothedDense
from smoothcert.workers.votes.voters import smooth
from tests.helpers.logits import assert_close, assert_fewer_are_computed_together, random_images

_CLASSES = 7
Kind = Literal["column", "row", "block"]

# Small networks of several kinds: architecture, options, side of the image.
_FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "convolutions, batch norm": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32]}, 32),
    "convolutions, layer norm": ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 32]}, 32),
    "attention over channels": ("xcit_nano_12_p16_224", {"depth": 2, "embed_dim": 32}, 48),
    "attention in windows": (
        "swin_tiny_patch4_window7_224",
        {"depths": [2, 2], "embed_dim": 16, "num_heads": [2, 2], "window_size": 4},
        32,
    ),
    "a convolutional stem": ("vit_tiny_r_s16_p8_224", {"depth": 1}, 32),
}


def _model(family: str, dtype: str = "float32") -> Model:
    architecture, options, _ = _FAMILIES[family]
    job = {"architecture": architecture, "options": options, "checkpoint": "none", "classes": _CLASSES}
    return Model.model_validate(job | {"dtype": dtype, "masked_tokens": "keep"})


def _network(family: str) -> nn.Module:
    """In evaluation mode, with weights that matter and statistics of norms that are not those of any batch."""
    network = build_classifier(_model(family), _FAMILIES[family][2]).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.named_parameters():
        values = torch.randn(tensor.shape, generator=generator)
        scale, shift = (1.5 / tensor[0].numel() ** 0.5, 0) if tensor.dim() > 1 else (0.1, float("bias" not in name))
        tensor.copy_(scale * values + shift)
    for name, tensor in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network


def _engine(family: str, kind: Kind, size: int, stride: int, dtype: str = "float32", upsample: int = 1) -> Smoothed:
    side = _FAMILIES[family][2] // upsample
    geometry = ablations_of(WindowAblation(kind=kind, size=size, stride=stride), side, side)
    return smooth(
        copy.deepcopy(_network(family)),
        geometry,
        preprocess=Preprocess(resize=None, crop=side, upsample=upsample),
        format=Format.of(_model(family, dtype), dtype),
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize(
    ("kind", "size", "stride", "upsample"), [("column", 5, 7, 1), ("row", 4, 5, 2), ("block", 9, 9, 1)]
)
def test_logits_are_those_of_a_plain_loop(family: str, kind: Kind, size: int, stride: int, upsample: int) -> None:
    """An ablation's logits are those of timm's network on the blackened image, upsampled where the job says so."""
    side, network = _FAMILIES[family][2] // upsample, _network(family)
    engine, images = _engine(family, kind, size, stride, upsample=upsample), random_images(2, side)
    assert isinstance(engine, SmoothedDense)
    spans = [(torch.arange(side) - offset) % side < size for offset in range(0, side, stride)]
    everywhere = [torch.ones(side, dtype=torch.bool)]
    expected = [
        network(_normalised(images * (rows[:, None] & columns)[..., None], upsample))
        for rows in (everywhere if kind == "column" else spans)
        for columns in (everywhere if kind == "row" else spans)
    ]
    assert_close(engine.logits(images), torch.stack(expected, dim=1))
    whole = network(_normalised(images, upsample))
    assert_close(engine.clean_logits(images)[:, 0], whole)
    assert engine.clean_votes(images).classes[:, 0].tolist() == whole.argmax(-1).tolist()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2), ("float16", 5e-3)])
@pytest.mark.parametrize("family", _FAMILIES)
def test_a_vote_sees_its_own_ablation_alone(family: str, dtype: str, tolerance: float) -> None:
    """Whatever the other images of a batch are, or the pixels that the ablation hides, its logits stay."""
    engine, side = _engine(family, "column", 9, 9, dtype), _FAMILIES[family][2]
    images = random_images(4, side)
    before = engine.logits(images)[2]
    for extreme in (0, 255):
        replaced = torch.full_like(images, extreme)
        replaced[2] = images[2]
        assert_close(engine.logits(replaced)[2], before, tolerance)
        hidden = torch.full_like(images[2:3], extreme)
        hidden[:, :, 9:18] = images[2:3, :, 9:18]
        assert_close(engine.logits(hidden)[0, 1], before[1], tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 1e-1), ("float16", 1e-2)])
@pytest.mark.parametrize("family", _FAMILIES)
def test_half_precision_is_near_float32(family: str, dtype: str, tolerance: float) -> None:
    """Logits are float32, finer than the network's format, and near those of a float32 network."""
    images = random_images(2, _FAMILIES[family][2])
    logits = _engine(family, "column", 9, 9, dtype).logits(images)
    assert_close(logits, _engine(family, "column", 9, 9).logits(images), tolerance)
    assert (logits != logits.to(getattr(torch, dtype))).any()


def test_int8_is_refused() -> None:
    """Only blocks of Vision Transformers have it."""
    with pytest.raises(RequestError, match=r"^model.dtype: int8 is for Vision Transformers, not for .*; use bfloat16$"):
        _engine("convolutions, batch norm", "column", 9, 4, "int8")


def test_fewer_are_computed_together_when_memory_runs_out() -> None:
    """No ablation is lost on the way, and one that does not fit alone is an error."""
    engine = _engine("convolutions, batch norm", "column", 9, 4)
    assert_fewer_are_computed_together(engine, "_network", random_images(3, 32))


def test_statistics_of_a_batch_are_refused() -> None:
    """A norm without statistics of its own would let one ablation change the vote of another."""
    family = "convolutions, batch norm"
    network, side = _network(family), _FAMILIES[family][2]
    network.get_submodule("bn1").register_buffer("running_mean", None)
    network.get_submodule("bn1").register_buffer("running_var", None)
    whole, preprocess = Masks.whole(side, side), Preprocess(resize=None, crop=side)
    with pytest.raises(RequestError, match=r"^model: bn1 of resnet18 with options .* takes statistics of a batch"):
        smooth(network, whole, preprocess=preprocess, format=Format.of(_model(family)), device=torch.device("cpu"))


def test_dropping_tokens_that_are_not_there_is_refused() -> None:
    """One line says so, before any weights are read."""
    model = Model(architecture="resnet18", checkpoint="none", classes=_CLASSES)
    with pytest.raises(RequestError, match=r"^model\.masked_tokens: resnet18 .*no tokens to drop; set .*: keep$"):
        build_classifier(model, 32)


@pytest.mark.parametrize(
    ("architecture", "options", "side", "says"),
    [
        (
            "xcit_nano_12_p16_224",
            {"depth": 1, "global_pool": ""},
            32,
            r"gives \[1, 5, 7\] for an image, not 7 logits; ",
        ),
        (
            "resnet18",
            {"global_pool": ""},
            32,
            r"resnet18 with .* cannot classify an image of 32 x 32 pixels in float32: ",
        ),
    ],
)
def test_a_network_that_cannot_classify_is_refused_in_one_line(
    architecture: str, options: dict[str, Any], side: int, says: str
) -> None:
    """A network that takes no such image, or gives no logits, is refused before the first image."""
    model = Model(architecture=architecture, options=options, checkpoint="none", classes=7, masked_tokens="keep")
    network = build_classifier(model, side).eval().requires_grad_(False)
    geometry = ablations_of(WindowAblation(kind="column", size=4), side, side)
    preprocess = Preprocess(resize=None, crop=side)
    with pytest.raises(RequestError, match=says) as error:
        smooth(network, geometry, preprocess=preprocess, format=Format.of(model), device=torch.device("cpu"))
    assert "\n" not in str(error.value)


def _normalised(images: Tensor, upsample: int) -> Tensor:
    pixels = torch.nn.Upsample(scale_factor=upsample, mode="nearest")(images.permute(0, 3, 1, 2).float())
    mean, std = (torch.tensor(value)[:, None, None] for value in (Preprocess().mean, Preprocess().std))
    return (pixels / 255 - mean) / std
