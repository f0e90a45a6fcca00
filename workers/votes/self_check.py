"""Does an engine compute what timm computes? Every engine is checked before its first vote.

An engine takes a network apart: it folds the normalisation into the embedding, leaves tokens and rows out, and computes
blocks in its own way. An option of timm that changes one of these would give the votes of another network. No later
check would show it, because they all ask the same engine. So timm's own forward pass classifies a made-up image, whole
and under one ablation. Masking and normalisation are done here, without the engine. The engine must give the same
logits.

Covered: float32, where an engine and timm differ only by rounding. Not covered: other number formats, some of which
have code of their own for blocks (block_runs.py; tests/workers compare it); the weights (classifiers.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.shown import Masks, Shown
from smoothcert.workers.ablations.tokens import token_groups
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.refusals import one_line_if_refused
from smoothcert.workers.votes.smoothed import Smoothed, upsampled, without_tf32

# Logits may differ by a share of their spread, some hundred times the rounding of float32, and by a share of the
# largest, because an offset that all logits share costs digits.
_SHARE_OF_SPREAD, _SHARE_OF_LARGEST = 1e-3, 1e-5


class _View(NamedTuple):
    """How the made-up image is shown."""

    name: str  # for messages
    ablation: Masks  # one
    keep_hidden: bool


class Expected(NamedTuple):
    """A view, and timm's logits of it."""

    view: _View
    logits: Tensor  # [K]


def expected_logits(network: nn.Module, shown: Shown, *, preprocess: Preprocess, format: Format) -> list[Expected]:
    """timm's logits of the made-up image. Call this before an engine changes the network.

    Args:
        network: float32, in evaluation mode, on the engine's device.
        shown: the ablations of an image, before it is upsampled.
        preprocess: of the job.
        format: of the network.
    Raises:
        RequestError: the network cannot classify such an image.
    """
    without_tf32()
    expected = []
    for view in _views(network, shown, format):
        with one_line_if_refused(view.name, format.in_float32(), preprocess.network_side):
            expected.append(Expected(view, _timm_logits(network, view, preprocess)))
    return expected


def refuse_another_function(
    engine: Smoothed, expected: Sequence[Expected], *, preprocess: Preprocess, format: Format
) -> None:
    """Compare an engine with timm's forward pass.

    Args:
        engine: in float32.
        expected: of the engine's network and ablations.
        preprocess: of the job.
        format: of the network.
    Raises:
        RequestError: they disagree, or the engine cannot classify such an image.
    """
    image = made_up_image(preprocess)
    for view, logits in expected:
        with one_line_if_refused(view.name, format.in_float32(), preprocess.network_side):
            found = engine.one_logits(image, view.ablation, keep_hidden=view.keep_hidden)
        _refuse_far(found, logits, view, format)


def refuse_mixing(engine: Smoothed, *, preprocess: Preprocess, format: Format) -> None:
    """Refuse a network whose logits of an image depend on the other images of its batch.

    A patch could then change every vote, and no certificate would hold.

    Args:
        engine: in float32.
        preprocess: of the job.
        format: of the network.
    Raises:
        RequestError: they depend on them.
    """
    image = made_up_image(preprocess)
    others = [torch.zeros_like(image), torch.full_like(image, 255)]
    with one_line_if_refused("several images", format.in_float32(), preprocess.network_side):
        alone = engine.clean_logits(image[None])[0, 0]
        together = engine.clean_logits(torch.stack([image, *others]))[0, 0]
    if not torch.allclose(together, alone, rtol=0, atol=_allowed(alone), equal_nan=True):
        raise RequestError(
            f"model: {format.name} gives an image other logits if other images are beside it, so a patch could "
            "change every vote and no certificate would hold; use a network without operations over the batch"
        )


def made_up_image(preprocess: Preprocess) -> Tensor:
    """[crop, crop, channels] uint8, the same on every machine."""
    shape = (preprocess.crop, preprocess.crop, preprocess.channels)
    values = torch.arange(shape[0] * shape[1] * shape[2])
    return values.mul(37).remainder(251).to(torch.uint8).reshape(shape)


def _views(network: nn.Module, shown: Shown, format: Format) -> Iterator[_View]:
    """The whole image; one ablation with every token; the same with its hidden tokens left out, if the job
    leaves them out.
    """
    middle = Masks.one_of(shown, shown.middle)
    yield _View("an image", Masks.whole(shown.height, shown.width), keep_hidden=True)
    yield _View(f"an ablation, hidden pixels {shown.fill}", middle, keep_hidden=True)
    if not format.keep_hidden and isinstance(network, VisionTransformer):
        yield _View("an ablation with hidden tokens left out", middle, keep_hidden=False)


@torch.inference_mode()
def _timm_logits(network: nn.Module, view: _View, preprocess: Preprocess) -> Tensor:
    """[classes]: timm's own forward pass over the masked image."""
    device = next(network.parameters()).device
    visible_HW1 = torch.from_numpy(view.ablation.masks[0])[:, :, None]
    painted = upsampled((made_up_image(preprocess) * visible_HW1)[None], preprocess.upsample)
    mean, std = (torch.tensor(values) for values in (preprocess.mean, preprocess.std))
    normalised = (painted / 255 - mean) / std
    if view.ablation.fill == "mean":
        normalised *= upsampled(visible_HW1[None], preprocess.upsample)
    pixels = normalised.permute(0, 3, 1, 2).to(device)
    with (
        nullcontext() if view.keep_hidden else _only_shown_tokens(network, view.ablation.upsampled(preprocess.upsample))
    ):
        return network(pixels)[0]


@contextmanager
def _only_shown_tokens(network: nn.Module, ablation: Masks) -> Iterator[None]:
    """Let timm leave the hidden tokens out, where its forward pass drops tokens in training."""
    assert isinstance(network, VisionTransformer)
    [group] = token_groups(ablation, network.patch_embed.patch_size[0])
    prefix = network.num_prefix_tokens
    kept = torch.cat([torch.arange(prefix), torch.from_numpy(group.tokens[0]) + prefix])
    own, network.patch_drop = network.patch_drop, _Keep(kept)
    try:
        yield
    finally:
        network.patch_drop = own


class _Keep(nn.Module):
    """Keeps some tokens of each sequence."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self._tokens = tokens

    def forward(self, tokens_STD: Tensor) -> Tensor:
        return tokens_STD[:, self._tokens.to(tokens_STD.device)]


def _allowed(logits: Tensor) -> float:
    """By how much equal logits may differ."""
    near = logits.nan_to_num()
    return (_SHARE_OF_SPREAD * (near - near.mean()).abs().max() + _SHARE_OF_LARGEST * near.abs().max()).item()


def _refuse_far(found: Tensor, expected: Tensor, view: _View, format: Format) -> None:
    found, expected = found.float().cpu(), expected.float().cpu()
    if found.shape == expected.shape:
        allowed = _allowed(expected)
        if torch.allclose(found, expected, rtol=0, atol=allowed, equal_nan=True):
            return
        apart = f"logits differ by up to {(found - expected).abs().max():.3g}, rounding explains {allowed:.1g}"
    else:
        apart = f"{list(found.shape)} logits instead of {list(expected.shape)}"
    raise RequestError(
        f"model: votes would not be those of {format.name}: for {view.name}, smoothcert computes other logits than "
        f"timm's own forward pass ({apart}); leave out the option that changes it, or use another architecture"
    )
