"""An engine that computes another function than timm is refused, whatever made it so."""

import copy
import inspect
from typing import Any

import pytest
import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.voters import smooth

_SIDE, _CLASSES = 32, 5
_SMALL = {"patch_size": 8, "depth": 2, "embed_dim": 32, "num_heads": 2}
_GRAY = {"in_chans": 1}
# Each option of timm's VisionTransformer that a job file can set, at a value that is not its default.
_OPTIONS: dict[str, Any] = {
    "patch_size": 4,
    "in_chans": 1,
    "global_pool": "avg",
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 4,
    "mlp_ratio": 2.5,
    "qkv_bias": False,
    "qk_norm": True,
    "scale_attn_norm": True,
    "scale_mlp_norm": True,
    "proj_bias": False,
    "init_values": 0.5,
    "class_token": False,
    "pos_embed": "none",
    "no_embed_class": True,
    "reg_tokens": 2,
    "pre_norm": True,
    "final_norm": False,
    "fc_norm": True,
    "pool_include_prefix": True,
    "dynamic_img_size": True,
    "dynamic_img_pad": True,
    "drop_rate": 0.5,
    "pos_drop_rate": 0.5,
    "patch_drop_rate": 0.5,
    "proj_drop_rate": 0.5,
    "attn_drop_rate": 0.5,
    "drop_path_rate": 0.5,
    "weight_init": "jax",
    "fix_init": True,
    "embed_norm_layer": "rmsnorm",
    "norm_layer": "rmsnorm",
    "act_layer": "relu",
    "attn_layer": "diff",
}
_NOT_OF_A_JOB = {"self", "img_size", "num_classes", "device", "dtype", "embed_layer", "block_fn", "mlp_layer"}


def _job(options: dict[str, Any], masked_tokens: str = "drop", **more: Any) -> tuple[Model, Preprocess]:
    architecture = more.pop("architecture", "vit_tiny_patch16_224")
    numbers = [0.5] * options.get("in_chans", 3)
    model = {"architecture": architecture, "options": options, "checkpoint": "none", "classes": _CLASSES} | more
    return (
        Model.model_validate(model | {"masked_tokens": masked_tokens}),
        Preprocess(resize=None, crop=_SIDE, mean=numbers, std=numbers),
    )


def _network(model: Model) -> nn.Module:
    network = build_classifier(model, _SIDE).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def _smooth(network: nn.Module, model: Model, preprocess: Preprocess) -> Smoothed:
    geometry = ablations_of(WindowAblation(kind="column", size=5, stride=3), _SIDE, _SIDE)
    form = Format.of(model, model.dtype)
    return smooth(network, geometry, preprocess=preprocess, format=form, device=torch.device("cpu"))


def test_every_option_is_tried() -> None:
    """An option that timm adds shows here, so that somebody looks at it."""
    assert inspect.signature(VisionTransformer.__init__).parameters.keys() - _NOT_OF_A_JOB == _OPTIONS.keys()


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
@pytest.mark.parametrize("name", _OPTIONS)
def test_an_option_gives_timms_logits_or_an_error(name: str, masked_tokens: str) -> None:
    """No option of timm changes votes without a message: the whole image has timm's logits, or one line refuses it."""
    options = _SMALL | {name: _OPTIONS[name]} | ({"global_pool": "avg"} if name == "class_token" else {})
    model, preprocess = _job(options, masked_tokens)
    image = torch.randint(0, 256, (1, _SIDE, _SIDE, preprocess.channels), dtype=torch.uint8)
    try:
        network = _network(model)
        expected = network(((image / 255 - 0.5) / 0.5).permute(0, 3, 1, 2))
        found = _smooth(network, model, preprocess).clean_logits(image)[:, 0]
    except RequestError as error:
        assert "\n" not in str(error)
    else:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * expected.abs().max().item())


class _Scaled(VisionTransformer):
    def forward_features(self, *arguments: Any, **options: Any) -> Tensor:
        return 1.01 * super().forward_features(*arguments, **options)


class _NeighboursMixed(VisionTransformer):
    def _pos_embed(self, x: Tensor) -> Tensor:
        return super()._pos_embed(x + x.roll(1, dims=1))


class _InvertedPixels(VisionTransformer):
    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return super().forward(-x, *arguments, **options)


class _LogitsOfAnotherHead(VisionTransformer):
    def forward(self, *arguments: Any, **options: Any) -> Tensor:
        return super().forward(*arguments, **options).roll(1, dims=1)


class _LastBlockTwice(VisionTransformer):
    def forward_features(self, *arguments: Any, **options: Any) -> Tensor:
        blocks, self.blocks = self.blocks, nn.Sequential(*self.blocks, self.blocks[-1])
        try:
            return super().forward_features(*arguments, **options)
        finally:
            self.blocks = blocks


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("changed", [_Scaled, _NeighboursMixed, _InvertedPixels, _LogitsOfAnotherHead, _LastBlockTwice])
def test_another_forward_pass_is_refused(changed: type[VisionTransformer], dtype: str, masked_tokens: str) -> None:
    """A network whose forward pass is not what the engine takes apart is refused by name, in every number format."""
    model, preprocess = _job(_SMALL, masked_tokens, dtype=dtype)
    network = _network(model)
    network.__class__ = changed
    with pytest.raises(RequestError, match=r"^model: votes would not be those of vit_tiny_patch16_224 .*") as error:
        _smooth(network, model, preprocess)
    assert "\n" not in str(error.value)


def test_an_offset_of_all_logits_hides_nothing() -> None:
    """What decides a vote is how logits differ from each other, not how large they are."""
    model, preprocess = _job(_SMALL)
    network = _network(model)
    network.head.bias.fill_(1e3)
    _smooth(copy.deepcopy(network), model, preprocess)
    network.__class__ = _LogitsOfAnotherHead
    with pytest.raises(RequestError, match=r"^model: votes would not be those of"):
        _smooth(network, model, preprocess)


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "resnet18"])
def test_gray_networks_vote_on_gray_images(architecture: str) -> None:
    """One channel, one mean: an ablation's logits are those of timm on the image that is painted black."""
    small = _SMALL if architecture.startswith("vit") else {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    model, preprocess = _job(small | _GRAY, "keep", architecture=architecture)
    network = _network(model)
    images = torch.randint(0, 256, (2, _SIDE, _SIDE, 1), dtype=torch.uint8)
    expected = []
    for offset in range(0, _SIDE, 3):
        visible = (torch.arange(_SIDE) - offset) % _SIDE < 5
        painted = (images * visible[:, None]).permute(0, 3, 1, 2) / 255
        expected.append(network((painted - 0.5) / 0.5))
    found = _smooth(network, model, preprocess).logits(images)
    torch.testing.assert_close(found, torch.stack(expected, dim=1), rtol=0, atol=1e-4)


class _Centred(nn.Module):
    """Subtracts the mean of a batch, as batch norm does in training."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0, keepdim=True)


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_a_network_that_mixes_the_images_of_a_batch_is_refused(masked_tokens: Any) -> None:
    """A patch could change every vote; each image alone looks right."""
    model = Model(
        architecture="vit_tiny_patch16_224",
        options=_SMALL,
        checkpoint="",
        classes=_CLASSES,
        masked_tokens=masked_tokens,
    )
    network = build_classifier(model, _SIDE).eval().requires_grad_(False)
    preprocess = Preprocess(resize=None, crop=_SIDE)
    shown = ablations_of(WindowAblation(kind="column", size=4), _SIDE, _SIDE)
    mixing = copy.deepcopy(network)
    mixing.head = nn.Sequential(mixing.head, _Centred())
    settings: Any = {"preprocess": preprocess, "format": Format.of(model), "device": torch.device("cpu")}
    smooth(network, shown, **settings)
    with pytest.raises(RequestError, match="gives an image other logits if other images are beside it"):
        smooth(mixing, shown, **settings)
