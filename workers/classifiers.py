"""A job's model, checked and loaded: a timm VisionTransformer with the weights of its checkpoint.

Checkpoints load as safetensors or with torch's weights_only, so nothing in them is ever run.

Not covered: how it votes (smoothed_vit.py), which state dict of several is meant (checkpoints.py).
"""

import difflib
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from timm.layers import PatchEmbed
from timm.models import VisionTransformer
from torch import Tensor, nn

from manifests.errors import RequestError
from manifests.job import Job, Model
from workers.checkpoints import looks_like_safetensors

_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # of DistributedDataParallel and torch.compile


def load_classifier(model: Model, crop: int, checkpoint: Path, checkpoint_key: str | None) -> VisionTransformer:
    """Build the network for images of the crop's size and give it the checkpoint's weights, in float32.

    Args:
        model: of the job.
        crop: side of the image in pixels.
        checkpoint: a local file.
        checkpoint_key: the state dict to take, or None if the file is one.
    Raises:
        RequestError: timm has no such VisionTransformer, or the weights are not that network's.
    """
    network = build_classifier(model, crop)
    weights = _read_weights(checkpoint, checkpoint_key)
    own = network.state_dict()
    complaints = [
        *_some("lacks", sorted(own.keys() - weights.keys())),
        *_some("has besides", sorted(weights.keys() - own.keys())),
        *(
            f"{name} is {list(weights[name].shape)}, expected {list(own[name].shape)}"
            for name in sorted(own.keys() & weights.keys())
            if weights[name].shape != own[name].shape
        ),
    ]
    if complaints:
        more = f" (and {len(complaints) - 3} more)" if len(complaints) > 3 else ""
        raise RequestError(
            f"model.checkpoint: {checkpoint} does not fit {model.architecture} with {model.classes} classes on "
            f"{crop} x {crop} pixels: {'; '.join(complaints[:3])}{more}; correct architecture, options, classes or crop"
        )
    network.load_state_dict(weights)
    return network.float().eval().requires_grad_(False)


def build_classifier(model: Model, crop: int) -> VisionTransformer:
    """The network with arbitrary weights.

    Raises:
        RequestError: timm has no such VisionTransformer, or cannot build it for this crop.
    """
    if not timm.is_model(model.architecture):
        near = difflib.get_close_matches(model.architecture, timm.list_models(module="vision_transformer"), n=1)
        hint = f"did you mean {near[0]}?" if near else "see timm.list_models('*vit*')"
        raise RequestError(f"model.architecture: timm knows no {model.architecture!r}; {hint}")
    try:
        network = timm.create_model(model.architecture, num_classes=model.classes, img_size=crop, **model.options)
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        raise RequestError(
            f"model: timm cannot build {model.architecture} for {crop} x {crop} pixels with options "
            f"{model.options}: {' '.join(str(error).split())}; correct model.options or preprocess.crop"
        ) from None
    embed = getattr(network, "patch_embed", None)
    if not isinstance(network, VisionTransformer) or not isinstance(embed, PatchEmbed):
        raise RequestError(
            f"model.architecture: {model.architecture} is not a plain VisionTransformer, the only kind whose "
            "tokens can be dropped; name one, such as vit_small_patch16_224"
        )
    if not network.global_pool:
        raise RequestError("model.options: global_pool '' gives logits per token; name a pooling, such as token or avg")
    token_height, token_width = embed.patch_size
    if token_height != token_width or crop % token_height:
        raise RequestError(
            f"preprocess.crop: {crop} pixels are no multiple of the tokens of {model.architecture} "
            f"({token_height} x {token_width}); use another crop or model.options.patch_size"
        )
    return network


def preprocess_notice(job: Job) -> str | None:
    """A line where mean and std are not those timm names for the architecture's own weights."""
    own = timm.get_pretrained_cfg(job.model.architecture)
    used = (job.preprocess.mean, job.preprocess.std)
    if own is None or used == (tuple(own.mean), tuple(own.std)):
        return None
    return (
        f"preprocess: mean {list(used[0])} and std {list(used[1])} are not timm's for {job.model.architecture} "
        f"(mean {list(own.mean)}, std {list(own.std)}); right only if the checkpoint was trained so"
    )


def _some(verb: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"the file {verb} {names[0]}" + (f" and {len(names) - 1} others" if len(names) > 1 else "")]


def _read_weights(checkpoint: Path, checkpoint_key: str | None) -> dict[str, Tensor]:
    if looks_like_safetensors(checkpoint):
        content: Any = safetensors.torch.load_file(checkpoint)
    else:
        try:
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # torch's own text advises to switch the check off
            raise RequestError(
                f"model.checkpoint: {checkpoint} is a pickle of other things than tensors, which could run code, so it "
                "was not loaded; save a plain state dict, best as safetensors"
            ) from None
        except (RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise RequestError(
                f"model.checkpoint: {checkpoint} cannot be read ({' '.join(str(error).split())[:160]}); save a plain "
                "state dict, best as safetensors"
            ) from None
    if checkpoint_key is not None:
        content = content[checkpoint_key]
    if isinstance(content, nn.Module) or not isinstance(content, dict):
        raise RequestError(f"model.checkpoint: {checkpoint} holds a {type(content).__name__}, not a state dict")
    return {_WRAPPERS.sub("", name): value for name, value in content.items() if isinstance(value, Tensor)}
