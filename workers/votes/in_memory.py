"""Votes of a network in memory on images in memory, without a job.

The network votes as in a run: in the same engine, after the same checks, on batches of the same size.

Not covered: votes of a run (job_voter.py); certificates of the votes (certificates/cast_votes.py). Importing this file
loads no torch.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.ablation import Ablation, ablation_of
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, NumberFormat, Preprocess
from smoothcert.manifests.names import one_line
from smoothcert.manifests.yaml_file import validate
from smoothcert.workers.extras import needs_certify

if TYPE_CHECKING:
    from torch import Tensor, nn

    from smoothcert.workers.votes.smoothed import Smoothed

_ERROR_LENGTH = 300  # characters of torch's own text, which names weight_norm
_ABSENT = -1  # as in Run.votes


class CastVotes(NamedTuple):
    """The votes of a network.

    Attributes:
        classes: [images, ablations] int32, in the order of offsets; -1 in all of an image with a logit that is not
            finite. A run has no votes for such an image either.
        margins: [images, ablations] float32, top logit minus second; NaN where a logit is not finite.
    """

    classes: NDArray[np.int32]
    margins: NDArray[np.float32]


@needs_certify
def vote(
    network: "nn.Module",
    images: "Tensor | NDArray[np.uint8]",
    ablation: Ablation | Mapping[str, Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    upsample: int = 1,
    masked_tokens: Literal["drop", "keep"] = "drop",
    dtype: NumberFormat = "float32",
) -> CastVotes:
    """Let a network vote on the ablations of images, on the device where it is.

    Args:
        network: a VisionTransformer of timm, or with `masked_tokens="keep"` any module that turns normalised images
            [n, channels, side, side] into logits [n, classes]. It stays as it is: a copy votes, in evaluation mode.
        images: [images, side, side, channels] uint8, resized and cropped, not normalised.
        ablation: its keys, as in a job file.
        mean, std, upsample: of `preprocess`, as in a job file.
        masked_tokens, dtype: of `model`, as in a job file.
    Raises:
        RequestError: the network cannot vote so, its votes would be those of another network, or an argument is wrong.
    """
    from torch import nn

    from smoothcert.workers.votes.machine import auto_images_per_batch

    if not isinstance(network, nn.Module):
        raise RequestError(f"network: a {type(network).__name__} is no torch module")
    if (parameter := next(network.parameters(), None)) is None:
        raise RequestError("network: it has no parameters, so it is no classifier")
    if parameter.device.type not in ("cpu", "cuda"):
        raise RequestError(f"network: it is on {parameter.device}, where no engine computes; move it to cpu or cuda")
    pixels = _pixels(images)
    preprocess = _preprocess(pixels, mean=mean, std=std, upsample=upsample)
    with _precision_kept():
        engine = _engine(network, ablation_of(ablation), preprocess, {"masked_tokens": masked_tokens, "dtype": dtype})
        votes = [engine.votes(batch) for batch in pixels.split(auto_images_per_batch(parameter.device))]
    margins = np.concatenate([part.margins.cpu().numpy() for part in votes])
    classes = np.concatenate([part.classes.cpu().numpy() for part in votes]).astype(np.int32)
    classes[~np.isfinite(margins).all(axis=1)] = _ABSENT
    return CastVotes(classes, margins)


@contextmanager
def _precision_kept() -> Iterator[None]:
    """Give torch its settings back: an engine switches TF32 off for the whole process."""
    import torch

    matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions


def _pixels(images: Any) -> "Tensor":
    """The images as a tensor."""
    import torch

    is_array = isinstance(images, np.ndarray) and images.dtype == np.uint8
    found = torch.from_numpy(images.copy()) if is_array else images  # torch takes neither reversed nor frozen arrays
    if not isinstance(found, torch.Tensor) or found.dtype != torch.uint8:
        kind = getattr(images, "dtype", type(images).__name__)
        raise RequestError(
            f"images: {kind}, but must be an array or tensor of uint8, pixels from 0 to 255 that are not normalised"
        )
    shape = [*found.shape]
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] not in (1, 3) or 0 in shape:
        channels_first = len(shape) == 4 and shape[1] in (1, 3)
        remedy = "; put the channels last, such as by images.permute(0, 2, 3, 1)" if channels_first else ""
        raise RequestError(f"images: shape {shape} is not [images, side, side, channels] with 3 channels or 1{remedy}")
    return found


def _preprocess(pixels: "Tensor", **settings: Any) -> Preprocess:
    side, channels = pixels.shape[2:]
    preprocess = validate(Preprocess, {"resize": None, "crop": side, **settings}, "vote")
    for name in ("mean", "std"):
        if len(getattr(preprocess, name)) != channels:
            raise RequestError(
                f"{name}: {list(getattr(preprocess, name))} is not one number for each of {channels} channels"
            )
    return preprocess


def _engine(network: "nn.Module", ablation: Ablation, preprocess: Preprocess, settings: dict[str, Any]) -> "Smoothed":
    """A copy of the network in its engine."""
    from smoothcert.workers.ablations.kinds import ablations_of
    from smoothcert.workers.networks.classifiers import checked
    from smoothcert.workers.votes.format import Format
    from smoothcert.workers.votes.voters import smooth

    own = _copy_of(network)
    content = {"architecture": type(network).__name__, "checkpoint": "in memory", **settings}
    model = validate(Model, content | {"classes": _classes_of(own, preprocess, content["architecture"])}, "network")
    return smooth(
        checked(own, model, preprocess.network_side),
        ablations_of(ablation, preprocess.crop, preprocess.crop),
        preprocess=preprocess,
        format=Format.of(model, model.dtype),
        device=next(own.parameters()).device,
    )


def _copy_of(network: "nn.Module") -> "nn.Module":
    """A copy that votes."""
    try:
        return copy.deepcopy(network).float().eval().requires_grad_(False)
    except (RuntimeError, ValueError, TypeError, AttributeError, copy.Error) as error:
        raise RequestError(
            f"network: {type(network).__name__} cannot be copied ({one_line(error, _ERROR_LENGTH)}); change it so that "
            "copy.deepcopy(network).float() works"
        ) from None


def _classes_of(network: "nn.Module", preprocess: Preprocess, name: str) -> int:
    """How many logits the network gives for an image."""
    import torch

    from smoothcert.workers.votes.format import Format
    from smoothcert.workers.votes.refusals import one_line_if_refused

    side = preprocess.network_side
    black = torch.zeros(1, preprocess.channels, side, side, device=next(network.parameters()).device)
    with torch.inference_mode(), one_line_if_refused("an image", Format(name, 0, keep_hidden=True), side):
        logits = network(black)
    shape = [*logits.shape] if isinstance(logits, torch.Tensor) else None
    if shape is None or len(shape) != 2 or shape[0] != 1:
        found = f"a {type(logits).__name__}" if shape is None else f"shape {shape}"
        raise RequestError(
            f"network: {name} gives {found} for an image, not logits [1, classes]; use or write a classifier"
        )
    return shape[1]
