"""Which state dict of a checkpoint file is meant, found without torch.

The run id depends on it, and computing a run id needs neither torch nor the weights. So this file reads
the outline of a checkpoint only: the keys of its outermost dict. A torch file is a pickle; here every class
in it becomes an inert placeholder, so nothing that it names is imported or run.

Not covered: the weights themselves (classifiers.py).
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, Self

from manifests.errors import RequestError

USUAL_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where training scripts put the weights, the averaged ones first (timm's order)."""

_LEGACY_PREAMBLE = 3  # torch before 1.6: magic number, protocol version, system info, then the object


def resolve_checkpoint_key(checkpoint: Path, key: str | None) -> str | None:
    """The key of the state dict to load, or None if the file is a state dict itself.

    Args:
        checkpoint: a local file.
        key: `model.checkpoint_key` of the job.
    Raises:
        RequestError: the file is no checkpoint, or has no such state dict.
    """
    inner = [] if looks_like_safetensors(checkpoint) else _dicts_in_torch_file(checkpoint)
    if key is None:
        return next((usual for usual in USUAL_KEYS if usual in inner), None)
    if key not in inner:
        there = f"it has: {', '.join(inner)}" if inner else "the file is one state dict; use null"
        raise RequestError(f"model.checkpoint_key: {checkpoint} has no state dict {key!r}; {there}")
    return key


def looks_like_safetensors(checkpoint: Path) -> bool:
    """Whether the file begins as safetensors do: the length of a JSON header, then that header."""
    with checkpoint.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < checkpoint.stat().st_size


class _Placeholder:
    """Stands for any class or object of a pickle: takes everything, does nothing."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _item: Any) -> None:
        pass


class _DictPlaceholder(dict[Any, Any]):
    """Stands for OrderedDict, the usual type of a state dict; its attributes are dropped."""

    def __setstate__(self, _state: Any) -> None:
        pass


class _OutlineUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _DictPlaceholder if (module, name) == ("collections", "OrderedDict") else _Placeholder

    def persistent_load(self, _storage: Any) -> Any:
        return _Placeholder()


def _dicts_in_torch_file(checkpoint: Path) -> list[str]:
    try:
        outline = _outline(checkpoint)
    except Exception as error:  # whatever a broken or hostile pickle provokes
        raise RequestError(
            f"model.checkpoint: {checkpoint} is neither safetensors nor a torch file ({repr(error)[:160]}); "
            "name a file of weights"
        ) from None
    if not isinstance(outline, dict):
        raise RequestError(f"model.checkpoint: {checkpoint} holds no state dict; save the model's state_dict()")
    return [key for key, value in outline.items() if isinstance(key, str) and isinstance(value, dict)]


def _outline(checkpoint: Path) -> Any:
    if zipfile.is_zipfile(checkpoint):
        with zipfile.ZipFile(checkpoint) as archive:
            pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
            return _OutlineUnpickler(io.BytesIO(archive.read(pickles[0]))).load()
    with checkpoint.open("rb") as file:
        first = _OutlineUnpickler(file).load()
        if isinstance(first, dict):
            return first
        for _ in range(_LEGACY_PREAMBLE - 1):
            _OutlineUnpickler(file).load()
        return _OutlineUnpickler(file).load()
