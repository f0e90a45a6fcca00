"""The engine against timm's own modules, which compute every token and hide some from attention."""

import copy
import importlib.util
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from timm.models import VisionTransformer
from torch import Tensor

from smoothcert.manifests.ablation import WindowAblation, ablation_of
from smoothcert.manifests.job import Model, NumberFormat, Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.shown import Shown
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.votes import smoothed_vit
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed_vit import SmoothedViT
from tests.helpers.house import SHARED
from tests.helpers.logits import assert_close, assert_fewer_are_computed_together, random_images
from tests.helpers.number_formats import require

_CPU = torch.device("cpu")
_CLASSES = 10
_GOLDEN = SHARED / "golden"
Kind = Literal["column", "row", "block"]

# Small networks of every kind that the engine accepts: architecture, options, side of the image.
_SMALL = {"depth": 2, "embed_dim": 96, "num_heads": 3}
_FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "class token": ("vit_tiny_patch16_224", {"depth": 3}, 64),
    "distilled": ("deit_tiny_distilled_patch16_224", {"depth": 2}, 64),
    "layer scale, class token without position": ("deit3_small_patch16_224", _SMALL, 64),
    "norm before the blocks, no embedding bias": ("vit_xsmall_patch16_clip_224", _SMALL, 64),
    "quick gelu": ("vit_base_patch16_clip_quickgelu_224", _SMALL, 64),
    "registers, average pooling": ("vit_medium_patch16_reg4_gap_256", _SMALL, 64),
    "average pooling without class token": ("vit_medium_patch16_gap_240", _SMALL, 64),
    "registers, tokens of 14, gated mlp": ("vit_giant_patch14_reg4_dinov2", _SMALL, 56),
    "attention pooling": ("vit_base_patch16_siglip_224", _SMALL, 64),
    "attention pooling with registers": ("vit_so150m_patch16_reg4_map_256", {**_SMALL, "global_pool": "map"}, 64),
    "norm after each branch": ("vit_base_patch16_rpn_224", _SMALL, 64),
    "parallel branches": ("vit_small_patch16_18x2_224", _SMALL, 64),
    "tokens of 32": ("vit_small_patch32_224", _SMALL, 96),
    "tokens of 8": ("vit_small_patch8_224", _SMALL, 64),
    "tokens of 4": ("vit_tiny_patch16_224", {**_SMALL, "patch_size": 4}, 32),
    "more tokens than _SHORT": ("vit_tiny_patch16_224", {**_SMALL, "patch_size": 4}, 64),
    "maximum and average pooling": ("vit_tiny_patch16_224", {**_SMALL, "global_pool": "avgmax"}, 64),
    "pooling with prefix": ("vit_tiny_patch16_224", {**_SMALL, "global_pool": "avg", "pool_include_prefix": True}, 64),
    "normed queries and keys": ("vit_tiny_patch16_224", {**_SMALL, "qk_norm": True, "scale_attn_norm": True}, 64),
    "no bias": ("vit_tiny_patch16_224", {**_SMALL, "qkv_bias": False}, 64),
    "no positions": ("vit_tiny_patch16_224", {**_SMALL, "pos_embed": "none"}, 64),
    "any size of image": ("vit_tiny_patch16_224", {**_SMALL, "dynamic_img_size": True}, 64),
}

# (kind, size, stride) on images of side 64: strides that divide neither side nor token, and one that does.
_ABLATIONS: list[tuple[Kind, int, int]] = [
    ("column", 5, 7),
    ("column", 19, 10),
    ("row", 9, 10),
    ("row", 16, 16),
    ("block", 21, 10),
    ("block", 30, 16),
]

_FORMATS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2), ("float16", 2e-3), ("int8", 2e-2)]
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", _FAMILIES)
def test_dropping_equals_hiding_from_attention(family: str) -> None:
    """Leaving hidden tokens out gives the logits of computing them and hiding them from attention and pooling."""
    architecture, options, side = _FAMILIES[family]
    network = _network(architecture, options, side)
    _check_drop(network, "column", 7, 5, side)
    _check_drop(network, "block", 18, 22, side)


@pytest.mark.parametrize(("kind", "size", "stride"), _ABLATIONS)
def test_dropping_is_exact_for_every_shape(kind: Kind, size: int, stride: int) -> None:
    """Columns, rows and blocks of any stride vote as their own definition, redone pixel by pixel, says."""
    _check_drop(_network("vit_tiny_patch16_224", _SMALL, 64), kind, size, stride, 64)


@pytest.mark.parametrize("edges", ["wrap", "inside"])
def test_ablations_inside_the_edges_do_not_wrap(edges: Literal["wrap", "inside"]) -> None:
    """Only ablations that go around the edge differ between the two edges."""
    _check_drop(_network("vit_tiny_patch16_224", _SMALL, 64), "column", 19, 7, 64, edges)


@pytest.mark.parametrize("family", ["class token", "registers, average pooling", "distilled", "attention pooling"])
def test_keep_equals_timm_on_the_masked_image(family: str) -> None:
    """With masked_tokens keep an ablation's logits are those of timm's network on the blackened image."""
    architecture, options, side = _FAMILIES[family]
    network, images = _network(architecture, options, side), random_images(2, side)
    engine = _engine(network, _geometry("column", 19, 7, side), masked_tokens="keep")
    expected = [_timm_forward(network, images, visible) for visible in _visible("column", 19, 7, side)]
    assert_close(engine.logits(images), torch.stack(expected, dim=1))


@pytest.mark.parametrize("masked_tokens", ["keep", "drop"])
@pytest.mark.parametrize(("kind", "size", "stride"), [("column", 4, 5), ("block", 13, 10)])
def test_pixels_are_repeated_after_the_ablation(kind: Kind, size: int, stride: int, masked_tokens: str) -> None:
    """32 x 32 pixels, ablated and only then upsampled 7 times, give the logits of timm's network on 224 x 224."""
    network, images = _network("vit_tiny_patch16_224", _SMALL, 224), random_images(2, 32)
    engine = _engine(network, _geometry(kind, size, stride, 32), masked_tokens=masked_tokens, upsample=7)
    forward = _masked_forward if masked_tokens == "drop" else _timm_forward
    expected = [
        forward(network, _nearest(images * visible[:, :, None], 7), _nearest(visible[None, :, :, None], 7)[0, ..., 0])
        for visible in _visible(kind, size, stride, 32)
    ]
    assert_close(engine.logits(images), torch.stack(expected, dim=1))
    everywhere = torch.ones(224, 224, dtype=torch.bool)
    assert_close(engine.clean_logits(images)[:, 0], _timm_forward(network, _nearest(images, 7), everywhere))


@pytest.mark.parametrize(
    "family", ["class token", "registers, average pooling", "norm before the blocks, no embedding bias"]
)
def test_clean_votes_equal_timm(family: str) -> None:
    """The clean vote is what timm's network says of the whole image."""
    architecture, options, side = _FAMILIES[family]
    network, images = _network(architecture, options, side), random_images(3, side)
    logits = network(_normalised(images, torch.ones(side, side, dtype=torch.bool)))
    votes = _engine(network, _geometry("column", 5, 7, side)).clean_votes(images)
    top = logits.topk(2).values
    assert votes.classes.tolist() == logits.argmax(-1)[:, None].tolist()
    assert_close(votes.margins, (top[:, 0] - top[:, 1])[:, None])


@_FORMATS
@pytest.mark.parametrize("others", [0, 255])
def test_a_vote_does_not_see_other_images(dtype: str, tolerance: float, others: int) -> None:
    """Whatever the other images of a batch are, an image's logits stay."""
    engine = _engine(_network("vit_tiny_patch16_224", {"depth": 3}, 64), _geometry("column", 9, 7, 64), dtype=dtype)
    images = random_images(5, 64)
    before = engine.logits(images)[2]
    replaced = torch.full_like(images, others)
    replaced[2] = images[2]
    assert_close(engine.logits(replaced)[2], before, tolerance)
    assert_close(engine.logits(images[2:3])[0], before, tolerance)


@_FORMATS
@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_a_vote_does_not_see_hidden_pixels(dtype: str, tolerance: float, masked_tokens: str) -> None:
    """Whatever the pixels are that an ablation hides, its logits stay."""
    kind, size, stride = "block", 21, 10
    network = _network("vit_tiny_patch16_224", {"depth": 3}, 64)
    engine = _engine(network, _geometry(kind, size, stride, 64), dtype=dtype, masked_tokens=masked_tokens)
    image = random_images(1, 64)
    before = engine.logits(image)[0]
    visibles = list(_visible(kind, size, stride, 64))
    for ablation in range(0, len(visibles), 5):
        replaced = torch.where(visibles[ablation][:, :, None], image, 255 * (image < 128))
        assert_close(engine.logits(replaced.to(torch.uint8))[0, ablation], before[ablation], tolerance)


@_FORMATS
@pytest.mark.parametrize("fill", ["black", "mean"])
@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_a_vote_does_not_see_what_masks_hide(dtype: str, tolerance: float, masked_tokens: str, fill: str) -> None:
    """Whatever the pixels below one mask or two are, the logits stay; and they do not below no mask."""
    masks = ablations_of(ablation_of({"kind": "mask", "threat": 9, "per_axis": 3, "fill": fill}), 64, 64)
    network = _network("vit_tiny_patch16_224", {"depth": 3}, 64)
    engine = _engine(network, masks, dtype=dtype, masked_tokens=masked_tokens)
    image = random_images(1, 64)
    before = engine.logits(image)[0]
    for ablation in (0, 4, 12, 30, 44):
        visible = torch.from_numpy(masks.visible(np.array([ablation])))[0]
        replaced = torch.where(visible[:, :, None], image, 255 * (image < 128)).to(torch.uint8)
        after = engine.logits(replaced)[0]
        assert_close(after[ablation], before[ablation], tolerance)
        assert (after - before).abs().max() > 10 * tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 5e-2), ("float16", 5e-3), ("int8", 1e-1)])
@pytest.mark.parametrize("family", ["class token", "registers, average pooling"])
def test_shorter_formats_are_near_float32(family: str, dtype: str, tolerance: float) -> None:
    """Blocks in bfloat16 give the logits of float32 to about two digits, in float16 to about three, in int8 to one."""
    architecture, options, side = _FAMILIES[family]
    network, geometry = _network(architecture, options, side), _geometry("column", 9, 7, side)
    images = random_images(2, side)
    exact = _engine(network, geometry).logits(images)
    assert_close(_engine(network, geometry, dtype=dtype).logits(images), exact, tolerance)


@pytest.mark.parametrize("weight", ["blocks.1.mlp.fc1.weight", "cls_token", "head.bias", "patch_embed.proj.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_has_no_margin(weight: str, value: float) -> None:
    """Where any logit is not finite, the margin is NaN, never a number that looks like a vote."""
    network = _network("vit_tiny_patch16_224", _SMALL, 64)
    network.get_parameter(weight).view(-1)[0] = value
    engine = _engine(network, _geometry("column", 64, 32, 64))
    assert engine.votes(random_images(2, 64)).margins.isnan().all()
    assert engine.clean_votes(random_images(2, 64)).margins.isnan().all()


@pytest.mark.parametrize("family", ["class token", "distilled", "normed queries and keys", "no bias", "quick gelu"])
def test_the_last_block_may_be_pruned(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computing only the rows that the head reads gives the logits of computing all."""
    architecture, options, side = _FAMILIES[family]
    engine = _engine(_network(architecture, options, side), _geometry("column", 9, 7, side))
    images = random_images(2, side)
    pruned = engine.logits(images)
    monkeypatch.setattr(smoothed_vit, "rows_that_the_head_reads", lambda network: None)
    assert_close(engine.logits(images), pruned, 1e-5)


@pytest.mark.parametrize(("family", "rows"), [("class token", 1), ("distilled", 2), ("attention pooling", None)])
def test_heads_read_the_rows_that_they_pool(family: str, rows: int | None) -> None:
    """A head on the class token reads one row, a distilled one two, a pooling one all."""
    assert smoothed_vit.rows_that_the_head_reads(_network(*_FAMILIES[family])) == rows


@pytest.mark.parametrize("at_once", [1, 37, 1 << 20])
def test_how_many_are_computed_together_changes_nothing(at_once: int) -> None:
    """Sequences computed one by one, or all at once, give the same logits."""
    engine = _engine(_network("vit_tiny_patch16_224", _SMALL, 64), _geometry("block", 21, 10, 64))
    images = random_images(2, 64)
    before = engine.logits(images)
    engine._at_once = at_once
    assert_close(engine.logits(images), before, 1e-5)


def test_fewer_are_computed_together_when_memory_runs_out() -> None:
    """No sequence is lost on the way, and one that does not fit alone is an error."""
    engine = _engine(_network("vit_tiny_patch16_224", _SMALL, 64), _geometry("column", 19, 7, 64))
    assert_fewer_are_computed_together(engine, "_classify", random_images(3, 64))


def test_ties_go_to_the_lowest_class() -> None:
    """Equal logits vote for the lowest class, with a margin of 0."""
    network = _network("vit_tiny_patch16_224", _SMALL, 64)
    network.head.weight.zero_()
    network.head.bias.zero_()[[3, 7]] = 1
    votes = _engine(network, _geometry("column", 9, 7, 64)).votes(random_images(1, 64))
    assert (votes.classes == 3).all()
    assert (votes.margins == 0).all()


@pytest.mark.skipif(not (_GOLDEN / "golden.npz").exists(), reason="golden votes lie beside the repository: absent here")
@pytest.mark.parametrize(("kind", "size", "stride"), [("column", 19, 1), ("block", 75, 16)])
@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))],
)
def test_votes_are_the_golden_votes(kind: Kind, size: int, stride: int, device: str) -> None:
    """Votes are those that timm's modules gave one ablation at a time, on another machine."""
    spec = importlib.util.spec_from_file_location("golden_weights", _GOLDEN / "weights.py")
    assert spec is not None and spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    golden = np.load(_GOLDEN / "golden.npz")
    model = Model(architecture="vit_tiny_patch16_224", checkpoint="golden", classes=10)
    network = weights.fill(build_classifier(model, 224)).float().eval().requires_grad_(False)
    geometry, where = _geometry(kind, size, stride, 224), torch.device(device)
    engine = SmoothedViT(network, geometry, preprocess=Preprocess(), format=Format.of(model), device=where)
    votes = engine.votes(torch.from_numpy(golden["images"]))
    margins = golden[f"{kind}_margins"]
    np.testing.assert_allclose(votes.margins.cpu().numpy(), margins, atol=1e-3)
    clear = margins > 1e-4
    assert (votes.classes.cpu().numpy() == golden[f"{kind}_votes"])[clear].all()
    assert clear.mean() > 0.99


def _check_drop(
    network: VisionTransformer, kind: Kind, size: int, stride: int, side: int, edges: Literal["wrap", "inside"] = "wrap"
) -> None:
    images = random_images(2, side)
    engine = _engine(network, _geometry(kind, size, stride, side, edges))
    expected = [_masked_forward(network, images, visible) for visible in _visible(kind, size, stride, side, edges)]
    assert_close(engine.logits(images), torch.stack(expected, dim=1))


def _masked_forward(network: VisionTransformer, images: Tensor, visible_HW: Tensor) -> Tensor:
    """Every token through timm's blocks; hidden ones are masked out of attention and left out of pooling."""
    token_px = network.patch_embed.patch_size[0]
    shown = visible_HW.unfold(0, token_px, token_px).unfold(1, token_px, token_px).flatten(2).any(2).flatten()
    shown = torch.cat([torch.ones(network.num_prefix_tokens, dtype=torch.bool), shown])
    mask = torch.zeros(len(shown), len(shown)).masked_fill(~shown[None, :], float("-inf"))
    tokens = network.forward_features(_normalised(images, visible_HW), attn_mask=mask)
    return network.forward_head(tokens[:, shown])


def _timm_forward(network: VisionTransformer, images: Tensor, visible_HW: Tensor) -> Tensor:
    """Every token, hidden pixels black."""
    return network(_normalised(images, visible_HW))


def _nearest(images_NHWC: Tensor, times: int) -> Tensor:
    """As the reference implementation upsamples."""
    upsampled = torch.nn.Upsample(scale_factor=times, mode="nearest")(images_NHWC.permute(0, 3, 1, 2).float())
    return upsampled.permute(0, 2, 3, 1).to(images_NHWC.dtype)


def _visible(
    kind: Kind, size: int, stride: int, side: int, edges: Literal["wrap", "inside"] = "wrap"
) -> Iterator[Tensor]:
    """The pixels of each ablation, [side, side], from the definition of its shape."""
    offsets = range(0, side if edges == "wrap" else side - size + 1, stride)
    everywhere = torch.ones(side, dtype=torch.bool)
    spans = [(torch.arange(side) - offset) % side < size for offset in offsets]
    for rows in [everywhere] if kind == "column" else spans:
        for columns in [everywhere] if kind == "row" else spans:
            yield rows[:, None] & columns


def _normalised(images: Tensor, visible_HW: Tensor) -> Tensor:
    mean, std = (torch.tensor(value)[:, None, None] for value in (Preprocess().mean, Preprocess().std))
    return (images.permute(0, 3, 1, 2).float() / 255 * visible_HW - mean) / std


def _network(architecture: str, options: dict[str, Any], side: int) -> VisionTransformer:
    """With weights so large that every token counts: timm's own start near zero in places."""
    model = Model(architecture=architecture, options=options, checkpoint="none", classes=_CLASSES)
    network = build_classifier(model, side).float().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("_embed", "_token", "latent")):
            parameter.copy_(0.5 * values)
        elif parameter.dim() > 1:
            parameter.copy_(1.5 * values / parameter[0].numel() ** 0.5)
        else:
            parameter.copy_(0.1 * values + (0 if name.endswith("bias") else 1))
    return network


def _engine(
    network: VisionTransformer,
    geometry: Shown,
    *,
    dtype: str = "float32",
    masked_tokens: str = "drop",
    upsample: int = 1,
) -> SmoothedViT:
    """Of a copy of the network, which the engine may change."""
    assert dtype in get_args(NumberFormat)
    require(dtype)
    form = Format("a network", _CLASSES, keep_hidden=masked_tokens == "keep", dtype=dtype)
    preprocess = Preprocess(upsample=upsample)
    return SmoothedViT(copy.deepcopy(network), geometry, preprocess=preprocess, format=form, device=_CPU)


def _geometry(kind: Kind, size: int, stride: int, side: int, edges: Literal["wrap", "inside"] = "wrap") -> Shown:
    return ablations_of(WindowAblation(kind=kind, size=size, stride=stride, edges=edges), side, side)
