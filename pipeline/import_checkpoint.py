"""`smoothcert import-checkpoint`: the tensors of a pickle as safetensors, without running what is in it.

For files that hold other objects beside the tensors, which torch's weights_only refuses. Objects of unknown classes are
left out; a file that calls an unknown function is refused.

Not covered: whose weights these are (workers/classifiers.py, when a job names the new file).
"""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from manifests.errors import RequestError
from workers.checkpoints import choose_key, duplicates, looks_like_safetensors, printable
from workers.inert_pickle import ITEM_BYTES, CallRefusedError, StoredTensor
from workers.torch_file import RawTensor, read_content, read_tensors

_SHARED = 4  # a file is far larger than a fourth of its tensors, unless they share nearly all of their numbers


def import_checkpoint(checkpoint: Path, output: Path | None, key: str | None) -> str:
    """Write a state dict of a torch file as safetensors.

    Args:
        checkpoint: the torch file.
        output: where to; None: beside it.
        key: which state dict of several; None: the one that a job without `checkpoint_key` would take.
    Returns:
        What was kept and what left out, in a line.
    Raises:
        RequestError: the file is none, or calls something; or the output exists.
    """
    if not checkpoint.is_file():
        raise RequestError(f"{checkpoint}: no such file; name a checkpoint of torch")
    output = output or checkpoint.with_suffix(".safetensors")
    if looks_like_safetensors(checkpoint):
        raise RequestError(f"{checkpoint} is safetensors already; name it in model.checkpoint")
    content = _content(checkpoint)
    key = choose_key(content, key, str(checkpoint))
    state_dict: Mapping[Any, Any] = content if key is None else content[key]
    stored = {
        name: value for name, value in state_dict.items() if isinstance(name, str) and isinstance(value, StoredTensor)
    }
    if not stored:
        raise RequestError(f"{checkpoint} has no tensors in {_named(key)}; name a state dict with --key")
    twice = duplicates(stored)
    kept = {name: value for name, value in stored.items() if name not in twice}
    _check(checkpoint, kept)
    try:
        tensors = {name: _tensor(raw) for name, raw in read_tensors(checkpoint, kept)}
    except Exception as error:  # whatever a broken or hostile file provokes
        raise RequestError(f"{checkpoint} is damaged ({printable(repr(error))}); fetch it again") from None
    _write_new(output, tensors)
    others = [name for name in state_dict if name not in stored]
    others += [] if key is None else [name for name in content if name != key]
    left = [*([f"{len(twice):,} copies"] if twice else []), *sorted(map(printable, others))]
    parameters = sum(math.prod(tensor.shape) for tensor in kept.values())
    return (
        f"{output}: {len(kept):,} tensors with {parameters:,} parameters of {_named(key)}, names as they were; "
        f"left out: {', '.join(left) or 'nothing'}"
    )


def _content(checkpoint: Path) -> dict[Any, Any]:
    try:
        content = read_content(checkpoint, refuse_calls=True)
    except CallRefusedError as error:
        raise RequestError(
            f"{checkpoint} calls {printable(str(error))}, which could run code, so nothing was imported; save the "
            "state dict alone, where the file was made"
        ) from None
    except Exception as error:  # whatever a broken or hostile pickle provokes
        raise RequestError(f"{checkpoint} is no file of torch.save ({printable(repr(error))}); name one") from None
    if not isinstance(content, dict):
        raise RequestError(f"{checkpoint} holds no state dict; save the model's state_dict()")
    return content


def _check(checkpoint: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """What safetensors cannot hold, and what is not worth the memory.

    Raises:
        RequestError: there is such a tensor, or the file is far smaller than its tensors.
    """
    for name, tensor in tensors.items():
        if tensor.numbers.dtype.startswith("complex") or name == "__metadata__":
            raise RequestError(
                f"{checkpoint}: {printable(name)} cannot be in a file of safetensors ({tensor.numbers.dtype} numbers); "
                "save the state dict without it, where the file was made"
            )
    size = checkpoint.stat().st_size
    total = sum(math.prod(tensor.shape) * ITEM_BYTES[tensor.numbers.dtype] for tensor in tensors.values())
    if total > _SHARED * size:
        raise RequestError(
            f"{checkpoint}: its tensors would be {total:,} bytes, the file has {size:,}; save the state dict alone"
        )


def _tensor(raw: RawTensor) -> Tensor:
    stored = raw.stored
    dtype = getattr(torch, stored.numbers.dtype)
    numbers = torch.frombuffer(raw.data, dtype=dtype) if raw.data else torch.empty(0, dtype=dtype)
    view = numbers.as_strided(stored.shape, stored.strides, stored.offset)
    return view.clone(memory_format=torch.contiguous_format)  # views share numbers, files of safetensors do not


def _write_new(output: Path, tensors: dict[str, Tensor]) -> None:
    aside = output.with_name(f".{output.name}.part")
    try:
        safetensors.torch.save_file(tensors, aside)
        os.link(aside, output)  # fails if it exists, and never leaves half a file
    except FileExistsError:
        raise RequestError(f"{output} exists, and is not overwritten; name another with --output") from None
    except (OSError, SafetensorError, UnicodeError) as error:
        said = printable(getattr(error, "strerror", None) or str(error))
        raise RequestError(
            f"{output} cannot be written: {said}; check {output.parent} for room and rights, or name another file "
            "with --output"
        ) from None
    finally:
        with suppress(OSError):
            aside.unlink()


def _named(key: str | None) -> str:
    return "the file's state dict" if key is None else f"state dict {key!r}"
