"""A job's model, checked and loaded: a timm classifier with the weights of its checkpoint.

Not covered: how it votes (voters.py), how its weights are read (weights.py) and found (fitting.py).
"""

import difflib
from pathlib import Path
from typing import TypeGuard

import timm
from timm.layers import PatchEmbed
from timm.models import VisionTransformer
from torch import nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job, Model, Network, Preprocess, refuse_code
from smoothcert.manifests.names import one_line
from smoothcert.workers.networks.fitting import fit_of
from smoothcert.workers.networks.misfits import Misfit, describe
from smoothcert.workers.networks.normaliser import check_normalisers
from smoothcert.workers.networks.own_code import network_from_code
from smoothcert.workers.networks.transformers_names import with_timm_names
from smoothcert.workers.networks.transformers_vit import transformers_vit  # noqa: F401  adds it to timm's models
from smoothcert.workers.networks.vit_convolution import ConvolutionTransformer
from smoothcert.workers.networks.weights import read_weights, without_ignored


def load_classifier(
    model: Model, preprocess: Preprocess, checkpoint: Path, checkpoint_key: str | None, *, allow_code: bool = False
) -> nn.Module:
    """Build the network for the job's images and give it the checkpoint's weights, in float32.

    Args:
        model, preprocess: of the job.
        checkpoint: a local file.
        checkpoint_key: the state dict to take; None if the file itself is one.
        allow_code: whether code that the job names may run.
    Raises:
        RequestError: timm has no such classifier, or the weights are not that network's.
    """
    side, channels, url = preprocess.network_side, len(preprocess.mean), model.checkpoint
    network = build_classifier(model, side, allow_code=allow_code)
    weights = without_ignored(read_weights(checkpoint, checkpoint_key, url), model.ignore, url)
    weights = with_timm_names(weights, network)
    fit = fit_of(weights, network, model, channels)
    if not fit.loads:
        raise RequestError(describe(Misfit(weights, network, model, side, channels, fit), build_classifier))
    check_normalisers(fit.normalisers, preprocess, url)
    network.load_state_dict(fit.tensors)
    return network.float().eval().requires_grad_(False)


def build_classifier(model: Network, side: int, *, allow_code: bool = False) -> nn.Module:
    """The network with arbitrary weights.

    Args:
        model: of a job or a training.
        side: of the network's images, in pixels: crop x upsample.
        allow_code: whether code that the file names may run.
    Raises:
        RequestError: timm has no such classifier, cannot build it for this size, or it has no tokens to drop.
    """
    if model.is_code:
        refuse_code(model, allow_code=allow_code)
        return checked(network_from_code(model, side), model, side)
    if not timm.is_model(model.architecture):
        near = difflib.get_close_matches(model.architecture, timm.list_models(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see timm.list_models()"
        raise RequestError(f"model.architecture: timm knows no {model.architecture!r}; {hint}")
    try:
        network = _create(model, side)
    except (TypeError, ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError, AttributeError) as error:
        raise RequestError(
            f"model: timm cannot build {model.architecture} for {side} x {side} pixels with options "
            f"{model.options}: {one_line(error)}; correct model.options or preprocess.crop"
        ) from None
    return checked(network, model, side)


def checked(network: nn.Module, model: Network, side: int) -> nn.Module:
    """The network, unless its tokens cannot be dropped or do not fit the image.

    Args:
        network: of the model.
        model, side: as for `build_classifier`.
    Raises:
        RequestError: it cannot vote so.
    """
    if not has_tokens(network):
        if model.masked_tokens == "drop":
            raise RequestError(
                f"model.masked_tokens: {model.architecture} is no plain VisionTransformer and has no tokens to drop; "
                "set model.masked_tokens: keep"
            )
        return network
    if not network.global_pool:
        raise RequestError("model.options: global_pool '' gives logits per token; name a pooling, such as token or avg")
    token_height, token_width = network.patch_embed.patch_size
    if token_height != token_width or side % token_height:
        raise RequestError(
            f"preprocess: crop x upsample is {side} pixels, no multiple of the tokens of {model.architecture} "
            f"({token_height} x {token_width}); use another crop, upsample or model.options.patch_size"
        )
    return network


def has_tokens(network: nn.Module) -> TypeGuard[VisionTransformer]:
    """Whether a network is a plain VisionTransformer, whose hidden tokens can be left out."""
    return (
        isinstance(network, VisionTransformer)
        and isinstance(network.patch_embed, PatchEmbed)
        and not isinstance(network, ConvolutionTransformer)
    )


def _create(model: Network, side: int) -> nn.Module:
    try:
        return timm.create_model(model.architecture, num_classes=model.classes, img_size=side, **model.options)
    except TypeError as error:
        if "'img_size'" not in str(error):
            raise
        return timm.create_model(model.architecture, num_classes=model.classes, **model.options)  # takes any size


def preprocess_notice(job: Job) -> str | None:
    """A line if mean and std are not those that timm names for the architecture's own weights."""
    _, hub, name = job.model.checkpoint.partition("timm:")
    own = timm.get_pretrained_cfg(name.partition("@")[0] if hub else job.model.architecture)
    used = (job.preprocess.mean, job.preprocess.std)
    if own is None or len(own.mean) != job.preprocess.channels or used == (tuple(own.mean), tuple(own.std)):
        return None
    return (
        f"preprocess: mean {list(used[0])} and std {list(used[1])} are not timm's for {own.architecture} "
        f"(mean {list(own.mean)}, std {list(own.std)}); right only if the checkpoint was trained so"
    )
