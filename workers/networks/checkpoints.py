"""Which state dict of a checkpoint file is meant, and how the file is laid out, found without torch.

The run id depends on the state dict, and computing a run id needs neither torch nor the weights. So only names are read
here.

Not covered: the weights (weights.py), whether they fit the job's network (classifiers.py).
"""

import os.path
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import listed, printable
from smoothcert.workers.networks.checkpoint_files import what_it_is
from smoothcert.workers.networks.inert_pickle import Inert, StoredTensor
from smoothcert.workers.networks.torch_file import read_content

USUAL_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where training scripts put the weights, the averaged ones first (timm's order)."""

# The `robustness` library keeps the network three times: itself, in an attacker, and its normaliser beside it.
_DUPLICATE = re.compile(r"(?:^|\.)attacker\.")
NORMALISER = re.compile(r"(?:^|\.)normali[sz]er?(?:\.1|\.normalizer)?\.new_(mean|std)$")

TRANSFORMERS_STEM = "embeddings.patch_embeddings.projection.weight"
"""How the name of the embedding ends in the ViTs of Hugging Face transformers (transformers_names.py)."""

AVERAGED = "n_averaged"
"""The counter that torch's AveragedModel keeps beside the network."""


class Recognised(NamedTuple):
    """The state dict to load.

    Attributes:
        key: its key in the file's outermost dict; None if the file is a state dict itself.
        layout: a description of file and state dict, for people.
    """

    key: str | None
    layout: str


def recognise(checkpoint: Path, key: str | None, *, url: str | None = None) -> Recognised:
    """Choose the state dict to load.

    Args:
        checkpoint: a local file.
        key: `model.checkpoint_key` of the job.
        url: the name of the file in errors; None: its path.
    Raises:
        RequestError: the file is not a checkpoint, or has no such state dict.
    """
    url = url or str(checkpoint)
    if looks_like_safetensors(checkpoint):
        content: Any = dict.fromkeys(_names_of_safetensors(checkpoint, url))
        container = "safetensors"
    else:
        content = _torch_content(checkpoint, url)
        container = "torch file"
    chosen = choose_key(content, key, url)
    names = [name for name in (content if chosen is None else content[chosen]) if isinstance(name, str)]
    return Recognised(chosen, ", ".join(_layout(container, chosen, names)))


def choose_key(content: Mapping[Any, Any], key: str | None, url: str) -> str | None:
    """The key of the state dict to load, or None if the content is a state dict itself.

    Args:
        content: the file's outermost dict.
        key: the requested key; None for the usual one.
        url: the name of the file in errors.
    Raises:
        RequestError: there is no such state dict, or none has a usual name.
    """
    inner = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Mapping)}
    if key is not None:
        if key not in inner:
            there = f"it has: {listed(inner, most=10)}" if inner else "the file is one state dict; use null (no --key)"
            raise RequestError(f"model.checkpoint_key: {url} has no state dict {key!r}; {there}")
        return key
    usual = next((usual for usual in USUAL_KEYS if usual in inner), None)
    if usual is not None:
        return usual
    if whole := [name for name in USUAL_KEYS if isinstance(content.get(name), Inert)]:
        raise RequestError(
            f"model.checkpoint: {url} holds under {whole[0]!r} not a state dict but an object of "
            f"{printable(type(content[whole[0]]).__name__)}, which could run code; save its state_dict() instead"
        )
    if inner and _num_tensors(content) <= max(map(_num_tensors, inner.values())):
        raise RequestError(
            f"model.checkpoint: {url} has no state dict of a usual name; it has: {listed(inner, most=10)}; name "
            "one as model.checkpoint_key (for import-checkpoint, as --key)"
        )
    return None


def _num_tensors(content: Mapping[Any, Any]) -> int:
    return sum(isinstance(value, StoredTensor) for value in content.values())


def duplicates(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """The names in an attacker (see above) whose numbers the network also has under its own name."""
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
        averaged = re.search(r"(?:^|_)ema(?:_|$)", key)
        yield f"EMA weights of {printable(key)!r}" if averaged else f"state dict {printable(key)!r}"
    if any(name.endswith(TRANSFORMERS_STEM) for name in own):
        yield "names of transformers"
        return
    shared = os.path.commonprefix([name for name in own if name != AVERAGED])  # noqa: RUF071  cut at the last dot
    if prefix := shared[: shared.rfind(".") + 1]:
        yield f"prefix {printable(prefix)!r}"


def _names_of_safetensors(checkpoint: Path, url: str) -> list[str]:
    try:
        with safe_open(checkpoint, "numpy") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise RequestError(
            f"model.checkpoint: {url} is not a complete safetensors file ({printable(str(error))}); fetch it again"
        ) from None


def _torch_content(checkpoint: Path, url: str) -> dict[Any, Any]:
    try:
        content = read_content(checkpoint)
    except Exception as error:  # a damaged or hostile pickle may cause any error
        found = what_it_is(checkpoint) or f"{printable(repr(error))}; name a file of weights"
        raise RequestError(
            f"model.checkpoint: {url} is neither safetensors nor a torch file of tensors: {found}"
        ) from None
    if not isinstance(content, dict):
        raise RequestError(f"model.checkpoint: {url} holds no state dict; save the model's state_dict()")
    return content
