"""The normalisers that wrappers save beside their network: the job must have the same mean and std.

A wrapper normalises pixels itself, with buffers such as `normalize.mean` and `normalize.std`. The job must do the same
before the network. A pair is recognised by its names, under any prefix. It holds one number, or one for each channel,
for pixels from 0 to 1 or from 0 to 255.

Not covered: which tensors are the network's own (fitting.py).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import MAX_OF_UNIT, Preprocess
from smoothcert.manifests.names import printable
from smoothcert.workers.networks.checkpoints import NORMALISER

_NAME = re.compile(r"(?:^|[._])(mean|means|mu|std|stds|sigma)$")
_PARTNER = {"mean": "std", "means": "stds", "mu": "sigma"}
_PARTNER |= {std: mean for mean, std in _PARTNER.items()}

_TOLERANCE = 5e-4  # numbers near 0.5, rounded to float16
_STD_TOLERANCE = 0.01  # share of a std, which may be far smaller
_DIGITS = 6  # float32 has no more
_COUNTS = {1: "one number", 3: "three numbers"}


def normalisers(tensors: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Find the tensors that are the mean or the std of a normaliser, by name.

    Args:
        tensors: by name, without the network's own.
        channels: of the images.
    """
    return {
        name: tensor
        for name, tensor in tensors.items()
        if NORMALISER.search(name)
        or ((partner := _partner(name)) in tensors and _fits(tensor, channels) and _fits(tensors[partner], channels))
    }


def check_normalisers(tensors: Mapping[str, Tensor], preprocess: Preprocess, url: str) -> None:
    """Refuse a job that normalises pixels differently from the network's own normaliser.

    Args:
        tensors: as `normalisers` finds them.
        preprocess: of the job.
        url: the name of the file in errors.
    Raises:
        RequestError: the job has another mean or std.
    """
    channels = len(preprocess.mean)
    for name, tensor in tensors.items():
        key = _key_of(name)
        here: tuple[float, ...] = getattr(preprocess, key)
        pair = [tensors[each] for each in (name, _partner(name)) if each in tensors and _fits(tensors[each], channels)]
        unit = 255 if any(float(each.abs().max()) > MAX_OF_UNIT for each in pair) else 1
        there = tensor.double().flatten().expand(channels) / unit if _fits(tensor, channels) else None
        if there is None or not _near(there, torch.tensor(here, dtype=torch.float64), tensor.dtype, key):
            wanted = _COUNTS.get(channels, f"{channels} numbers")
            rounded = wanted if there is None else [float(f"{number:.4g}") for number in there.tolist()]
            raise RequestError(
                f"preprocess.{key}: {list(here)} is not what {url} was trained with ({printable(name)}); "
                f"set it to {rounded}"
            )


def saved_normaliser(tensors: Mapping[str, Tensor], channels: int) -> dict[str, list[float]]:
    """`mean` and `std` of `preprocess` as a normaliser beside a network has them, for pixels from 0 to 1.

    Args:
        tensors: by name, as a file holds them.
        channels: of the images.
    Returns:
        Empty if there is no whole pair.
    """
    found = {
        _key_of(name): tensor.double().flatten().expand(channels)
        for name, tensor in normalisers(tensors, channels).items()
        if _fits(tensor, channels)
    }
    if found.keys() != {"mean", "std"}:
        return {}
    unit = 255 if any(float(tensor.abs().max()) > MAX_OF_UNIT for tensor in found.values()) else 1
    return {key: [round(number / unit, _DIGITS) for number in found[key].tolist()] for key in ("mean", "std")}


def _key_of(name: str) -> str:
    return "std" if _word(name) in ("std", "stds", "sigma") else "mean"


def _word(name: str) -> str:
    found = _NAME.search(name)
    return found[1] if found else ""


def _partner(name: str) -> str:
    """The other name of the pair; empty if the name does not belong to a pair."""
    word = _word(name)
    return name.removesuffix(word) + _PARTNER[word] if word else ""


def _fits(tensor: Tensor, channels: int) -> bool:
    return tensor.numel() in (1, channels)


def _near(there: Tensor, here: Tensor, dtype: torch.dtype, key: str) -> bool:
    """Whether two means or stds agree, except for the rounding of the file's number format."""
    rounding = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    allowed = (rounding * here.abs()).clamp(min=_TOLERANCE)
    if key == "std":
        allowed = allowed.minimum(_STD_TOLERANCE * here)
    return bool(((there - here).abs() <= allowed).all())
