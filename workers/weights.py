"""The tensors of a checkpoint, and which of them are a network's.

A training script saves its network under other names: wrapped, averaged, beside a copy of itself or a normaliser. The
network's own names are looked for under every prefix, and what remains must be explained.

Files load as safetensors or with torch's weights_only, so nothing in them is ever run.
Not covered: which state dict of several is meant (checkpoints.py).
"""

import pickle
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from manifests.errors import RequestError
from manifests.job import Preprocess
from workers.checkpoints import AVERAGED, NORMALISER, looks_like_safetensors, printable
from workers.likely_vit import likely_vit

_NORMALISERS_AGREE = 5e-4  # numbers near 0.5, rounded to float16


def read_weights(checkpoint: Path, checkpoint_key: str | None, url: str) -> dict[str, Tensor]:
    """The tensors of a state dict.

    Args:
        checkpoint: a local file.
        checkpoint_key: the state dict to take, or None if the file is one.
        url: of the file, to be named in errors.
    Raises:
        RequestError: the file cannot be read, or only by running what is in it.
    """
    try:
        if looks_like_safetensors(checkpoint):
            content: Any = safetensors.torch.load_file(checkpoint)
        else:
            with checkpoint.open("rb") as file:  # of a path torch.load would look at the suffix
                content = torch.load(file, map_location="cpu", weights_only=True)
        if checkpoint_key is not None:
            content = content[checkpoint_key]
    except pickle.UnpicklingError:  # torch's own text advises to switch the check off
        raise RequestError(
            f"model.checkpoint: {url} is a pickle of other things than tensors, which could run code, so it was "
            "not loaded; `smoothcert import-checkpoint FILE` makes safetensors of its weights, and runs nothing"
        ) from None
    except Exception as error:  # whatever a broken or hostile file provokes
        raise RequestError(
            f"model.checkpoint: {url} cannot be read ({printable(' '.join(str(error).split()))}); save a plain state "
            "dict, best as safetensors"
        ) from None
    if not isinstance(content, dict):
        raise RequestError(f"model.checkpoint: {url} holds a {type(content).__name__}, not a state dict")
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def complaints_of(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str) -> list[str]:
    """What keeps a state dict from being a network's; none where it fits.

    Args:
        weights: of the file.
        own: the network's state dict.
        prefix: of the network's names in the file.
    """
    named = {prefix + name: name for name in own}
    both = sorted(named.keys() & weights.keys())
    besides = [
        name
        for name in sorted(weights.keys() - named.keys(), key=lambda name: (not name.startswith(prefix), name))
        if not NORMALISER.search(name) and name != AVERAGED and not _repeats(name, weights, own, prefix)
    ]
    return [
        *_some("lacks", sorted(named.keys() - weights.keys())),
        *_some("has besides", besides),
        *(
            f"{name} is {list(weights[name].shape)}, expected {list(own[named[name]].shape)}"
            for name in both
            if weights[name].shape != own[named[name]].shape
        ),
        *(
            f"{name} holds {weights[name].dtype} numbers, expected floating ones"
            for name in both
            if own[named[name]].is_floating_point() and not weights[name].is_floating_point()
        ),
    ]


def prefix_of(names: Collection[str], own: Collection[str]) -> str:
    """What stands before the network's own names in a file: what does so most often, the shortest of several."""
    counts = Counter(name.removesuffix(tail) for name in names for tail in _tails(name) if tail in own)
    return min(counts, key=lambda prefix: (-counts[prefix], len(prefix)), default="")


def check_normaliser(weights: Mapping[str, Tensor], preprocess: Preprocess, url: str) -> None:
    """A network that was trained behind a normaliser of its own must get pixels normalised the same way.

    Raises:
        RequestError: the job says otherwise.
    """
    for name, value in weights.items():
        if found := NORMALISER.search(name):
            here: tuple[float, ...] = getattr(preprocess, found[1])
            there = value.flatten().tolist() if value.numel() == 3 else []
            near = [abs(a - b) <= _NORMALISERS_AGREE for a, b in zip(there, here, strict=False)]
            if len(there) != 3 or not all(near):
                rounded = [round(number, 4) for number in there]
                raise RequestError(
                    f"preprocess.{found[1]}: {list(here)} is not what {url} was trained with ({printable(name)}); "
                    f"set it to {rounded or 'three numbers'}"
                )


def likely(weights: Mapping[str, Tensor]) -> str:
    """A hint at the network that the weights are of, to be added to an error; may be empty."""
    vit = likely_vit({name: tuple(value.shape) for name, value in weights.items()})
    return "" if vit is None else f"; by its shapes the file is {vit}"


def _tails(name: str) -> Iterator[str]:
    """The name, and what remains of it after each dot."""
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def _repeats(name: str, weights: Mapping[str, Tensor], own: Collection[str], prefix: str) -> bool:
    """Whether a tensor is the network's own once more, under another prefix."""
    value = weights[name]
    return any(
        torch.equal(value, weights[prefix + tail]) for tail in _tails(name) if tail in own and prefix + tail in weights
    )


def _some(verb: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"the file {verb} {printable(names[0])}" + (f" and {len(names) - 1} others" if len(names) > 1 else "")]
