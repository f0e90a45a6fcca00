"""What a checkpoint file holds, found without torch: which state dict of several is meant, and how it is laid out.

The run id depends on it, and computing a run id needs neither torch nor the weights. So only names and shapes are
read here.

Not covered: the weights themselves (weights.py), whether they fit the job's network (classifiers.py).
"""

import json
import os.path
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from manifests.errors import RequestError
from workers.inert_pickle import StoredTensor
from workers.torch_file import read_content

USUAL_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where training scripts put the weights, the averaged ones first (timm's order)."""

# The `robustness` library keeps the network three times: itself, in an attacker, and its normaliser beside it.
_DUPLICATE = re.compile(r"(?:^|\.)attacker\.")
NORMALISER = re.compile(r"(?:^|\.)normali[sz]er?(?:\.1|\.normalizer)?\.new_(mean|std)$")


class Recognised(NamedTuple):
    """The state dict that is meant.

    Attributes:
        key: of the file's outermost dict, or None if the file is a state dict itself.
        layout: of file and state dict, for people.
    """

    key: str | None
    layout: str


def recognise(checkpoint: Path, key: str | None) -> Recognised:
    """Choose the state dict to load.

    Args:
        checkpoint: a local file.
        key: `model.checkpoint_key` of the job.
    Raises:
        RequestError: the file is no checkpoint, or has no such state dict.
    """
    if looks_like_safetensors(checkpoint):
        content: Any = dict.fromkeys(_safetensors_header(checkpoint))
        container = "safetensors"
    else:
        content = _torch_content(checkpoint)
        container = "torch file"
    chosen = choose_key(content, key, checkpoint)
    names = [name for name in (content if chosen is None else content[chosen]) if isinstance(name, str)]
    return Recognised(chosen, ", ".join(_layout(container, chosen, names)))


def choose_key(content: Mapping[Any, Any], key: str | None, checkpoint: Path) -> str | None:
    """The key of the state dict to load, or None if the content is a state dict itself.

    Args:
        content: the file's outermost dict.
        key: the one that is asked for, or None for the usual one.
        checkpoint: to be named in the error.
    Raises:
        RequestError: there is no such state dict, or none is the usual one.
    """
    inner = [name for name, value in content.items() if isinstance(name, str) and isinstance(value, Mapping)]
    if key is None:
        usual = next((usual for usual in USUAL_KEYS if usual in inner), None)
        if usual is None and inner and not any(isinstance(value, StoredTensor) for value in content.values()):
            raise RequestError(
                f"model.checkpoint: {checkpoint} has no state dict of a usual name; it has: {', '.join(inner)}; name "
                "one as model.checkpoint_key (for import-checkpoint, as --key)"
            )
        return usual
    if key not in inner:
        there = f"it has: {', '.join(inner)}" if inner else "the file is one state dict; use null"
        raise RequestError(f"model.checkpoint_key: {checkpoint} has no state dict {key!r}; {there}")
    return key


def duplicates(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Names under which an attacker keeps the very numbers that the network has under its own name."""
    return [
        name
        for name, tensor in tensors.items()
        if (own := _DUPLICATE.sub(".", name).removeprefix(".")) != name and tensors.get(own) == tensor
    ]


def looks_like_safetensors(checkpoint: Path) -> bool:
    """Whether the file begins as safetensors do: the length of a JSON header, then that header."""
    with checkpoint.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < checkpoint.stat().st_size


def _layout(container: str, key: str | None, names: Collection[str]) -> Iterator[str]:
    own = [name for name in names if not _DUPLICATE.search(name) and not NORMALISER.search(name)]
    yield "reference layout" if len(own) < len(names) else container
    if key is not None:
        yield f"EMA weights of {key!r}" if "ema" in key else f"state dict {key!r}"
    shared = os.path.commonprefix(own)  # noqa: RUF071  names with dots, cut at the last one
    if prefix := shared[: shared.rfind(".") + 1]:
        yield f"prefix {prefix!r}"


def _safetensors_header(checkpoint: Path) -> list[str]:
    with checkpoint.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    try:
        return [name for name in json.loads(header) if name != "__metadata__"]
    except ValueError:
        raise RequestError(
            f"model.checkpoint: the header of {checkpoint} is not that of safetensors; name a file of weights"
        ) from None


def _torch_content(checkpoint: Path) -> dict[Any, Any]:
    try:
        content = read_content(checkpoint)
    except Exception as error:  # whatever a broken or hostile pickle provokes
        raise RequestError(
            f"model.checkpoint: {checkpoint} is neither safetensors nor a torch file ({repr(error)[:160]}); "
            "name a file of weights"
        ) from None
    if not isinstance(content, dict):
        raise RequestError(f"model.checkpoint: {checkpoint} holds no state dict; save the model's state_dict()")
    return content
