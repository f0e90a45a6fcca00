"""Does an engine compute what timm computes? Each is asked before its first vote.

An engine takes a network apart: it folds the normalisation into the embedding, leaves tokens and rows out, computes
blocks its own way. An option of timm that changes one of these would give the votes of another network, and nothing
else would show it, for every later check asks the same engine. So a made-up image, whole and under one ablation, goes
through the engine and, painted and normalised by hand, through timm's own forward pass. The logits must agree.

Covered: float32, in which an engine and timm differ by rounding alone. Not covered: other number formats, which run the
same code (tests/workers); the weights (classifiers.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.votes.smoothed import Smoothed, upsampled, without_tf32

# How far apart logits may lie: of their spread, some hundred times what float32 rounds; and of the largest, for an
# offset that all share costs digits.
_OF_THE_SPREAD, _OF_THE_LARGEST = 1e-3, 1e-5


class _View(NamedTuple):
    """How the made-up image is shown: what is compared, in words, and the ablation that shows it."""

    name: str
    ablation: Geometry
    keep_hidden: bool


def refuse_another_function(
    engine: Smoothed, network: nn.Module, geometry: Geometry, *, preprocess: Preprocess, model: Model
) -> None:
    """Compare an engine with timm's forward pass of its network.

    Args:
        engine: in float32.
        network: as it was before the engine took it over, float32, in evaluation mode, on the engine's device.
        geometry: the ablations of an image, before it is upsampled.
        preprocess, model: of the job.
    Raises:
        RequestError: they disagree, or one of them cannot classify such an image.
    """
    without_tf32()
    image = made_up_image(preprocess)
    for view in _views(geometry, model, network):
        try:
            found = engine.one_logits(image, view.ablation, keep_hidden=view.keep_hidden)
            expected = _timm_logits(network, image, view, preprocess)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, LookupError) as error:
            raise RequestError(
                f"model: {_named(model)} cannot classify {view.name} of {preprocess.network_side} x "
                f"{preprocess.network_side} pixels: {' '.join(str(error).split())[:160]}; correct model.options, crop "
                "or upsample"
            ) from None
        _refuse_far(found, expected, view, model)


def made_up_image(preprocess: Preprocess) -> Tensor:
    """[crop, crop, channels] uint8, the same on every machine."""
    shape = (preprocess.crop, preprocess.crop, preprocess.channels)
    values = torch.arange(shape[0] * shape[1] * shape[2])
    return values.mul(37).remainder(251).to(torch.uint8).reshape(shape)


def _views(geometry: Geometry, model: Model, network: nn.Module) -> Iterator[_View]:
    """The whole image; an ablation from the middle with its hidden pixels black, and with its hidden tokens left out
    where the job leaves them out.
    """
    down, across = (len(table) // 2 for table in (geometry.rows, geometry.columns))
    middle = Geometry(geometry.rows[down : down + 1], geometry.columns[across : across + 1])
    yield _View("an image", Geometry.whole(geometry.height, geometry.width), keep_hidden=True)
    yield _View("an ablation with hidden pixels black", middle, keep_hidden=True)
    if model.masked_tokens == "drop" and isinstance(network, VisionTransformer):
        yield _View("an ablation with hidden tokens left out", middle, keep_hidden=False)


@torch.inference_mode()
def _timm_logits(network: nn.Module, image: Tensor, view: _View, preprocess: Preprocess) -> Tensor:
    """[classes] of timm's own forward pass over the painted image."""
    device = next(network.parameters()).device
    visible = torch.from_numpy(view.ablation.rows[0][:, None] & view.ablation.columns[0][None, :])
    painted = upsampled((image * visible[:, :, None])[None], preprocess.upsample)
    mean, std = (torch.tensor(values) for values in (preprocess.mean, preprocess.std))
    pixels = ((painted / 255 - mean) / std).permute(0, 3, 1, 2).to(device)
    if view.keep_hidden:
        return network(pixels)[0]
    with _only_shown_tokens(network, view.ablation.upsampled(preprocess.upsample)):
        return network(pixels)[0]


@contextmanager
def _only_shown_tokens(network: nn.Module, ablation: Geometry) -> Iterator[None]:
    """timm leaves tokens out of training at one place of its forward pass: here the hidden ones."""
    assert isinstance(network, VisionTransformer)
    [group] = ablation.token_groups(network.patch_embed.patch_size[0])
    prefix = network.num_prefix_tokens
    kept = torch.cat([torch.arange(prefix), torch.from_numpy(group.tokens[0]) + prefix])
    own, network.patch_drop = network.patch_drop, _Keep(kept)
    try:
        yield
    finally:
        network.patch_drop = own


class _Keep(nn.Module):
    """Some tokens of each sequence."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self._tokens = tokens

    def forward(self, tokens_STD: Tensor) -> Tensor:
        return tokens_STD[:, self._tokens.to(tokens_STD.device)]


def _refuse_far(found: Tensor, expected: Tensor, view: _View, model: Model) -> None:
    found, expected = found.float().cpu(), expected.float().cpu()
    if found.shape == expected.shape:
        near = expected.nan_to_num()
        allowed = _OF_THE_SPREAD * (near - near.mean()).abs().max() + _OF_THE_LARGEST * near.abs().max()
        if torch.allclose(found, expected, rtol=0, atol=allowed.item(), equal_nan=True):
            return
        apart = f"logits differ by up to {(found - expected).abs().max():.3g}, rounding explains {allowed:.1g}"
    else:
        apart = f"{list(found.shape)} logits instead of {list(expected.shape)}"
    raise RequestError(
        f"model: votes would not be those of {_named(model)}: of {view.name}, smoothcert computes other logits than "
        f"timm's own forward pass ({apart}); leave out the option that changes it, or use another architecture"
    )


def _named(model: Model) -> str:
    return f"{model.architecture} with options {model.options}" if model.options else model.architecture
