"""The engines on a GPU against the same engines on the CPU. Needs no ray, so it runs on a bare machine, too."""

from functools import partial
from typing import Any

import pytest
import torch

from smoothcert.manifests.ablation import ablation_of
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.smoothed_vit import SmoothedViT
from smoothcert.workers.votes.voters import smooth
from tests.helpers.logits import assert_close, random_images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

_CLASSES = 10
_COLUMN = {"kind": "column", "size": 19, "stride": 7}
_ROW = {"kind": "row", "size": 19, "stride": 30}
_BLOCK = {"kind": "block", "size": 75, "stride": 56}
_MASK = {"kind": "mask", "threat": 32, "per_axis": 3, "fill": "black"}
_MEAN = {"kind": "mask", "threat": 32, "per_axis": 2, "fill": "mean"}
_ABLATIONS = pytest.mark.parametrize("ablation", [_COLUMN, _ROW, _BLOCK, _MASK, _MEAN], ids=str)
_FORMATS = pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 5e-2), ("float16", 5e-3)])
_VIT = "vit_small_patch16_224"


def _engine(
    ablation: dict[str, Any], device: str, *, dtype: str = "float32", architecture: str = _VIT, **options: Any
) -> Smoothed:
    """Weights so large that every token counts; the same ones each time."""
    hidden = {"masked_tokens": "keep"} if architecture.startswith("resnet") else {}
    model = Model(
        architecture=architecture, options=options, checkpoint="none", classes=_CLASSES, dtype=dtype, **hidden
    )
    network: Any = build_classifier(model, 224).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        values = torch.randn(parameter.shape, generator=random)
        if parameter.dim() > 1 and not name.endswith(("_embed", "_token")):
            parameter.copy_(1.2 * values / parameter[0].numel() ** 0.5)
        else:
            parameter.copy_(0.3 * values + (0 if name.endswith(("bias", "_embed", "_token")) else 1))
    shown = ablations_of(ablation_of(ablation), 224, 224)
    return smooth(network, shown, preprocess=Preprocess(), format=Format.of(model, dtype), device=torch.device(device))


def _is_fused(engine: SmoothedViT) -> bool:
    return isinstance(engine.run_blocks, partial) and engine.run_blocks.func.__name__ == "run_fused"


@_ABLATIONS
@pytest.mark.parametrize("architecture", [_VIT, "resnet18"])
def test_float32_votes_are_those_of_the_cpu(architecture: str, ablation: dict[str, Any]) -> None:
    """Wherever the margin is above 1e-4."""
    images = random_images(3, 224)
    options = {"depth": 3} if architecture == _VIT else {}
    here, there = (_engine(ablation, device, architecture=architecture, **options) for device in ("cpu", "cuda"))
    assert_close(there.logits(images).cpu(), here.logits(images))
    expected, votes = here.votes(images), there.votes(images)
    clear = expected.margins > 1e-4
    assert clear.float().mean() > 0.9
    assert torch.equal(votes.classes.cpu()[clear], expected.classes[clear])
    assert_close(there.clean_logits(images).cpu(), here.clean_logits(images))


@_ABLATIONS
@_FORMATS
def test_half_precision_is_near_float32(ablation: dict[str, Any], dtype: str, tolerance: float) -> None:
    """The kernels between the products compute what float32 computes, to two or three digits."""
    images = random_images(3, 224)
    exact, engine = (_engine(ablation, "cuda", dtype=each, depth=4) for each in ("float32", dtype))
    assert isinstance(engine, SmoothedViT)
    assert _is_fused(engine)
    assert_close(engine.logits(images), exact.logits(images), tolerance)
    assert_close(engine.clean_logits(images), exact.clean_logits(images), tolerance)


@pytest.mark.parametrize(
    ("architecture", "options", "fused"),
    [
        ("deit3_small_patch16_224", {}, True),
        ("deit_tiny_distilled_patch16_224", {}, True),
        ("vit_tiny_patch16_224", {"qkv_bias": False}, False),
        ("vit_tiny_patch16_224", {"qk_norm": True}, False),
        ("vit_base_patch16_rpn_224", {"embed_dim": 96, "num_heads": 3}, False),
    ],
)
def test_blocks_that_the_kernels_do_not_fit_run_without_them(
    architecture: str, options: dict[str, Any], fused: bool
) -> None:
    """All in float16, near float32."""
    images = random_images(2, 224)
    made = [
        _engine(_COLUMN, "cuda", dtype=each, architecture=architecture, depth=2, **options)
        for each in ("float32", "float16")
    ]
    assert isinstance(made[1], SmoothedViT)
    assert _is_fused(made[1]) == fused
    assert_close(made[1].logits(images), made[0].logits(images), 5e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2), ("float16", 2e-3)])
@_ABLATIONS
def test_a_vote_depends_on_its_own_ablation_alone(ablation: dict[str, Any], dtype: str, tolerance: float) -> None:
    """Neither other images nor the pixels that an ablation hides move its logits."""
    engine = _engine(ablation, "cuda", dtype=dtype, depth=3)
    shown = ablations_of(ablation_of(ablation), 224, 224)
    images = random_images(5, 224)
    before = engine.logits(images)[2]
    for others in (0, 255):
        replaced = torch.full_like(images, others)
        replaced[2] = images[2]
        assert_close(engine.logits(replaced)[2], before, tolerance)
    for number in range(0, shown.num_ablations, 5):
        visible = torch.from_numpy(shown.visible(torch.tensor([number]).numpy()))[0, :, :, None]
        replaced = torch.where(visible, images[2], 255 * (images[2] < 128)).to(torch.uint8)
        after = engine.logits(replaced[None])[0]
        assert_close(after[number], before[number], tolerance)
        assert (after - before).abs().max() > 10 * tolerance


def test_a_batch_that_is_too_large_is_computed_in_parts() -> None:
    """If the card has no room, fewer sequences are computed together, and none is lost."""
    engine, images = _engine({"kind": "column", "size": 19}, "cuda", dtype="bfloat16"), random_images(64, 224)
    before = engine.logits(images)
    engine._at_once = 1 << 30
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + (1 << 30)) / total)
    try:
        after = engine.logits(images)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert engine._at_once < 1 << 30
    assert_close(after, before, 2e-2)
