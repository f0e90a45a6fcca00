"""Float8 blocks: the kernels in Triton's interpreter and compiled for a card; on a GPU, the whole engine."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

pytest.importorskip("triton")

import triton

from benchmarks import float8_blocks
from benchmarks.float8_blocks import Float8Blocks, quantised_by_torch, use_float8
from smoothcert.manifests.ablation import ablation_of
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed_vit import SmoothedViT
from tests.helpers.interpreted import run_interpreted
from tests.helpers.logits import random_images

_DEVICES = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))],
)
_VIT = "vit_tiny_patch16_224"
_COLUMN = {"kind": "column", "size": 19, "stride": 32}
_BLOCK = {"kind": "block", "size": 75, "stride": 112}
_ABLATIONS = pytest.mark.parametrize("ablation", [_COLUMN, _BLOCK], ids=str)
_WAYS = pytest.mark.parametrize(
    ("architecture", "fast"), [("vit_tiny_patch16_224", False), ("vit_small_patch16_224", True)]
)

# Triton's interpreter loses the carry where rounding reaches the next power of two, so torch converts to float8 there.
_INTERPRETED = """
import numpy as np, timm, torch
import torch.nn.functional as F
import triton.language as tl
from triton.runtime import interpreter

theirs = interpreter._convert_float

def convert(values, before, after, rounding):
    if after != tl.float8e4nv:
        return theirs(values, before, after, rounding)
    return torch.from_numpy(np.array(values)).to(torch.float8_e4m3fn).view(torch.uint8).numpy()

interpreter._convert_float = convert
from benchmarks import float8_blocks as blocks8
"""

_KERNELS = (
    _INTERPRETED
    + """
def compare(found, expected):
    exact = blocks8.quantised_by_torch(expected)
    assert torch.allclose(found.scales, exact.scales, rtol=1e-4, atol=0)
    error = (found.float() - expected).abs().amax(1)
    assert (error <= 0.04 * expected.abs().amax(1)).all(), error
    assert (found.numbers.float() == exact.numbers.float()).float().mean() > 0.998

torch.manual_seed(0)
for width in (48, 192):
    rows = torch.randn(7, width).half()
    rows[1], rows[2] = 0, rows[2] * 1e-4
    rows[3, 5] = 6e4
    compare(blocks8.quantise(rows), rows.float())
    found = blocks8.gelu(rows)
    compare(found, F.gelu(rows.float()))
    assert (found.numbers[1].float() == 0).all()
    norm = torch.nn.LayerNorm(width).half().requires_grad_(False)
    norm.weight.normal_(), norm.bias.normal_()
    branch, tokens = torch.randn(7, width).half(), torch.randn(7, width).half()
    summed = tokens + branch
    for added in (branch, None):  # the second time there is nothing to add
        found = blocks8.add_and_norm(tokens, added, norm)
        assert torch.equal(tokens, summed)
        compare(found, F.layer_norm(summed.float(), (width,), norm.weight.float(), norm.bias.float(), norm.eps))
"""
)

_BLOCKS = (
    _INTERPRETED
    + """
network = timm.create_model("vit_tiny_patch16_224", depth=3).eval().requires_grad_(False)
torch.manual_seed(0)
for parameter in network.parameters():
    parameter.normal_(0, 1 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.3)
own = torch.randn(3, 7, 192)
expected = network.blocks(own)
narrow = network.blocks.half()
for fast in (False, True):
    run = blocks8.Float8Blocks(narrow, fast=fast)
    found = run(own.half())
    error = (found.float() - expected).norm() / expected.norm()
    assert 0.003 < error < 0.1, error
    others = torch.full_like(own, 3).half()
    others[1] = own[1].half()
    assert torch.equal(run(others)[1], found[1])
    assert not torch.equal(run(others)[0], found[0])
"""
)


def test_kernels_quantise_what_torch_computes() -> None:
    """With a scale for each row; a row of zeros stays one, whatever is beside it."""
    run_interpreted(_KERNELS)


def test_blocks_are_near_float32_and_do_not_mix_sequences() -> None:
    """To the digits of float8, whatever the other sequences are, to the last bit."""
    run_interpreted(_BLOCKS)


def test_rows_are_quantised_to_four_digits() -> None:
    """Each number to within a 16th of itself or a fraction of its row's scale; zeros and tiny rows are safe."""
    rows = torch.randn(64, 48, generator=torch.Generator().manual_seed(0)) * torch.logspace(-12, 6, 64)[:, None]
    rows[0] = 0
    found = quantised_by_torch(rows)
    assert found.numbers.dtype == torch.float8_e4m3fn
    assert torch.equal(found.float()[0], rows[0])
    assert (found.numbers.float().abs().amax(1)[1:] == 448).all()
    assert ((found.float() - rows).abs() <= torch.maximum(rows.abs() / 16, found.scales * 2**-10)).all()
    assert torch.equal(quantised_by_torch(rows[5:6]).numbers.float(), found.numbers[5:6].float())


@pytest.mark.parametrize("width", [192, 384, 768])
@pytest.mark.parametrize("kernel", ["quantise", "gelu", "add", "norm"])
def test_kernels_compile_for_a_card(kernel: str, width: int) -> None:
    """For Hopper, without one: to its own conversion to float8."""
    numbers = {"numbers": "*fp8e4nv", "scales": "*fp32", "rows": "i32"}
    if kernel in ("quantise", "gelu"):
        function, wide = float8_blocks._quantise, width * (4 if kernel == "gelu" else 1)
        types = {"values": "*bf16", **numbers}
        constants = {"ROWS": 1 if kernel == "gelu" else 4, "GELU": kernel == "gelu"}
    else:
        function, wide = float8_blocks._add_and_norm, width
        types = dict.fromkeys(("tokens", "branch", "weight", "bias"), "*bf16") | numbers | {"eps": "fp32"}
        constants = {"ROWS": 4, "ADDS": kernel == "add"} | ({} if kernel == "add" else {"branch": None})
    constants |= {"WIDTH": wide, "PADDED": triton.next_power_of_2(wide)}
    signature = {name: "constexpr" if name in constants else types[name] for name in function.arg_names}
    places = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = triton.compiler.ASTSource(function, signature, places)
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    assert "e4m3x2" in triton.compile(source, target=target).asm["ptx"]


def test_other_activations_are_refused() -> None:
    """The kernel is the exact GELU."""
    blocks: Any = timm.create_model("vit_tiny_patch16_224", depth=1).blocks
    blocks[0].mlp.act = nn.GELU(approximate="tanh")
    with pytest.raises(ValueError, match="tanh"):
        Float8Blocks(blocks, fast=True)


def test_engines_in_other_formats_are_refused() -> None:
    """Float8 replaces blocks in bfloat16."""
    with pytest.raises(ValueError, match="bfloat16 only"):
        _float8_engine(_COLUMN, "cpu", _VIT, dtype="float32", fast=True)


def _network(architecture: str) -> Any:
    """Weights so large that every token counts; the same ones each time."""
    model = _model(architecture)
    network: Any = build_classifier(model, 224).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        values = torch.randn(parameter.shape, generator=random)
        if parameter.dim() > 1 and not name.endswith(("_embed", "_token")):
            parameter.copy_(values / parameter[0].numel() ** 0.5)
        else:
            parameter.copy_(0.3 * values + (0 if name.endswith(("bias", "_embed", "_token")) else 1))
    return network


def _model(architecture: str) -> Model:
    return Model(architecture=architecture, options={"depth": 3}, checkpoint="none", classes=10)


def _engine(
    ablation: dict[str, Any], device: str, dtype: str, architecture: str = _VIT, network: Any = None
) -> SmoothedViT:
    return SmoothedViT(
        network or _network(architecture),
        ablations_of(ablation_of(ablation), 224, 224),
        preprocess=Preprocess(),
        format=Format.of(_model(architecture), dtype),
        device=torch.device(device),
    )


def _float8_engine(
    ablation: dict[str, Any], device: str, architecture: str, *, fast: bool, dtype: str = "bfloat16"
) -> SmoothedViT:
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this card has no float8")
    network = _network(architecture)
    engine = _engine(ablation, device, dtype, architecture, network)
    use_float8(engine, network.blocks, fast=fast)
    return engine


@_DEVICES
@_WAYS
@_ABLATIONS
def test_float8_is_near_float32(ablation: dict[str, Any], architecture: str, fast: bool, device: str) -> None:
    """Logits within 15 %, by their norm; not equal to bfloat16's, or float8 was not run."""
    images = random_images(3, 224)
    exact = _engine(ablation, device, "float32", architecture).logits(images)
    found = _float8_engine(ablation, device, architecture, fast=fast).logits(images)
    error = (found - exact).norm() / exact.norm()
    assert error < 0.15
    assert error > (_engine(ablation, device, "bfloat16", architecture).logits(images) - exact).norm() / exact.norm()


@_DEVICES
@_WAYS
@_ABLATIONS
def test_a_float8_vote_depends_on_its_own_ablation_alone(
    ablation: dict[str, Any], architecture: str, fast: bool, device: str
) -> None:
    """Neither other images nor the pixels that an ablation hides move its logits, not by a bit: the numbers of rows are
    the same each time, so the kernels are."""
    engine = _float8_engine(ablation, device, architecture, fast=fast)
    shown = ablations_of(ablation_of(ablation), 224, 224)
    images = random_images(3, 224)
    before = engine.logits(images)
    assert torch.equal(engine.logits(images), before)
    for others in (0, 255):
        replaced = torch.full_like(images, others)
        replaced[2] = images[2]
        assert torch.equal(engine.logits(replaced)[2], before[2])
    for number in range(0, shown.num_ablations, 3):
        visible = torch.from_numpy(shown.visible(torch.tensor([number]).numpy()))[0, :, :, None]
        after = engine.logits(_hidden_replaced(images, visible))
        assert torch.equal(after[:, number], before[:, number])
        assert not torch.equal(after, before)


def _hidden_replaced(images: Tensor, visible: Tensor) -> Tensor:
    """Each hidden pixel black or white, the opposite of what it is nearer to."""
    return torch.where(visible, images, 255 * (images < 128)).to(torch.uint8)
