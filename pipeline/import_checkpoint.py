"""`smoothcert import-checkpoint`: the tensors of a pickle as safetensors, without running what is in it.

For files that hold other objects beside the tensors, which torch's weights_only refuses. Objects of unknown classes are
left out; a file that calls an unknown function is refused.

Not covered: whose weights these are (workers/classifiers.py, when a job names the new file).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from manifests.errors import RequestError
from workers.checkpoints import choose_key, duplicates, looks_like_safetensors
from workers.inert_pickle import CallRefusedError, StoredTensor
from workers.torch_file import RawTensor, read_content, read_tensors


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
    output = output or checkpoint.with_suffix(".safetensors")
    if not checkpoint.is_file():
        raise RequestError(f"{checkpoint}: no such file; name a checkpoint of torch")
    if looks_like_safetensors(checkpoint):
        raise RequestError(f"{checkpoint} is safetensors already; name it in model.checkpoint")
    content = _content(checkpoint)
    key = choose_key(content, key, checkpoint)
    state_dict: Mapping[Any, Any] = content if key is None else content[key]
    stored = {name: value for name, value in state_dict.items() if isinstance(value, StoredTensor)}
    if not stored:
        raise RequestError(f"{checkpoint} has no tensors in {_named(key)}; name a state dict with --key")
    twice = duplicates(stored)
    kept = {str(name): value for name, value in stored.items() if name not in twice}
    try:
        tensors = {name: _tensor(raw) for name, raw in read_tensors(checkpoint, kept)}
    except Exception as error:  # whatever a broken or hostile file provokes
        raise RequestError(f"{checkpoint} is damaged ({repr(error)[:160]}); fetch it again") from None
    _write_new(output, safetensors.torch.save(tensors))
    others = [*(state_dict.keys() - stored.keys()), *(() if key is None else content.keys() - {key})]
    left = [*([f"{len(twice):,} copies"] if twice else []), *sorted(map(str, others))]
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
            f"{checkpoint} calls {error}, which could run code, so nothing was imported; save the state dict alone, "
            "where the file was made"
        ) from None
    except Exception as error:  # whatever a broken or hostile pickle provokes
        raise RequestError(f"{checkpoint} is no file of torch.save ({repr(error)[:160]}); name one") from None
    if not isinstance(content, dict):
        raise RequestError(f"{checkpoint} holds no state dict; save the model's state_dict()")
    return content


def _tensor(raw: RawTensor) -> Tensor:
    stored = raw.stored
    numbers = torch.frombuffer(raw.data, dtype=getattr(torch, stored.numbers.dtype)) if raw.data else torch.empty(0)
    return numbers.as_strided(stored.shape, stored.strides, stored.offset).contiguous()


def _write_new(output: Path, data: bytes) -> None:
    try:
        with output.open("xb") as file:
            try:
                file.write(data)
            except BaseException:
                output.unlink()  # never half a file
                raise
    except FileExistsError:
        raise RequestError(f"{output} exists, and is not overwritten; name another with --output") from None
    except OSError as error:
        raise RequestError(f"{output} cannot be written: {error.strerror}; name another with --output") from None


def _named(key: str | None) -> str:
    return "the file's state dict" if key is None else f"state dict {key!r}"
