"""The tensors of a checkpoint file, without those that a job ignores.

Files load as safetensors or with torch's weights_only, so nothing in them is ever run.
Not covered: which state dict of several is meant (checkpoints.py), which tensors are a network's (fitting.py).
"""

import pickle
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import listed, one_line, printable
from smoothcert.workers.networks.checkpoints import looks_like_safetensors


def read_weights(checkpoint: Path, checkpoint_key: str | None, url: str) -> dict[str, Tensor]:
    """Read the tensors of a state dict.

    Args:
        checkpoint: a local file.
        checkpoint_key: the state dict to take; None if the file itself is one.
        url: the name of the file in errors.
    Raises:
        RequestError: the file cannot be read, or only by running code in it.
    """
    try:
        if looks_like_safetensors(checkpoint):
            content: Any = safetensors.torch.load_file(checkpoint)
        else:
            with checkpoint.open("rb") as file:  # given a path, torch.load would look at its suffix
                content = torch.load(file, map_location="cpu", weights_only=True)
        if checkpoint_key is not None:
            content = content[checkpoint_key]
    except pickle.UnpicklingError:  # torch's own message advises to switch the check off
        raise RequestError(
            f"model.checkpoint: {url} is a pickle that holds more than tensors and could run code, so it was "
            "not loaded; `smoothcert import-checkpoint FILE` writes its weights as safetensors and runs nothing"
        ) from None
    except Exception as error:  # a damaged or hostile file may cause any error
        raise RequestError(
            f"model.checkpoint: {url} cannot be read ({printable(one_line(error))}); save a plain state "
            "dict, best as safetensors"
        ) from None
    if not isinstance(content, dict):
        raise RequestError(f"model.checkpoint: {url} holds a {type(content).__name__}, not a state dict")
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def without_ignored(weights: Mapping[str, Tensor], patterns: Sequence[str], url: str) -> dict[str, Tensor]:
    """Drop the tensors whose names match a pattern.

    Raises:
        RequestError: a pattern matches no name.
    """
    for pattern in patterns:
        if not any(is_like(name, pattern) for name in weights):
            raise RequestError(
                f"model.ignore: no tensor of {url} has a name like {printable(pattern)!r}; correct the pattern, or "
                f"remove it (the file has {listed(weights, most=10)})"
            )
    return {name: value for name, value in weights.items() if not any(is_like(name, each) for each in patterns)}


def is_like(name: str, pattern: str) -> bool:
    """Whether a pattern of `model.ignore` matches a name; a pattern also matches the name that is spelled the same."""
    return name == pattern or fnmatchcase(name, pattern)
