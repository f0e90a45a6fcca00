"""`smoothcert import-checkpoint` writes the tensors of a pickle as safetensors, without running the pickle.

It is for files that hold other objects beside the tensors, which torch's weights_only refuses. Objects of unknown
classes are left out. A file that calls an unknown function is refused. A network in several files, named by its index,
becomes one file.

Not covered: whether the weights fit a network (workers/networks/classifiers.py, when a job names the new file).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import printable
from smoothcert.manifests.shards import instead_of
from smoothcert.pipeline.console.looks import number_of
from smoothcert.workers.networks.checkpoint_files import INDEX_SUFFIX, in_folder, is_index, what_it_is
from smoothcert.workers.networks.checkpoints import choose_key, duplicates, looks_like_safetensors
from smoothcert.workers.networks.inert_pickle import ITEM_BYTES, CallRefusedError, StoredTensor
from smoothcert.workers.networks.torch_file import RawTensor, read_content, read_tensors
from smoothcert.workers.storage.aside import written_aside
from smoothcert.workers.storage.disk import reason_of
from smoothcert.workers.storage.folder_store import FolderStore

_MAX_GROWTH = 4  # times the file's size; more only if tensors share nearly all of their numbers


@dataclass(frozen=True)
class Imported:
    """The new file.

    Attributes:
        path: of the file.
        tensors, parameters: numbers of them.
        checkpoint_key: the state dict that was taken if the torch file holds several.
        files: number of files that were joined; 1 without an index.
        copies: tensors that were left out because they are the same as others.
        left_out: names of what else was left out.
    """

    path: str
    tensors: int
    parameters: int
    checkpoint_key: str | None = None
    files: int = 1
    copies: int = 0
    left_out: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def line(self) -> str:
        """The same for people."""
        holds = f"{self.path}: {self.tensors:,} tensors with {self.parameters:,} parameters"
        if self.files > 1:
            return f"{holds} of {number_of(self.files, 'file')}, names as they were"
        left_out = [*([f"{self.copies:,} copies"] if self.copies else []), *self.left_out]
        return (
            f"{holds} of {_describe(self.checkpoint_key)}, names as they were; "
            f"left out: {', '.join(left_out) or 'nothing'}"
        )


def import_checkpoint(checkpoint: Path, output: Path | None, key: str | None) -> Imported:
    """Write a state dict of a torch file as safetensors.

    Args:
        checkpoint: the torch file, or the index of several files.
        output: the file to write; None: beside the checkpoint.
        key: which of several state dicts; None: the one that a job without `checkpoint_key` would take.
    Returns:
        What the new file holds and what was left out.
    Raises:
        RequestError: the checkpoint is not a torch file, or calls a function; or the output exists.
    """
    _require_file(checkpoint)
    if is_index(checkpoint):
        if key is not None:
            raise RequestError(f"{checkpoint} is the index of a network in parts, which has no keys; leave out --key")
        return _join(checkpoint, output)
    if looks_like_safetensors(checkpoint):
        raise RequestError(f"{checkpoint} is safetensors already; name it in model.checkpoint")
    return _convert(checkpoint, output or checkpoint.with_suffix(".safetensors"), key)


def _convert(checkpoint: Path, output: Path, key: str | None) -> Imported:
    """Write the tensors of one state dict; objects beside them and second copies are left out."""
    content = _content(checkpoint)
    key = choose_key(content, key, str(checkpoint))
    state_dict: Mapping[Any, Any] = content if key is None else content[key]
    stored = {
        name: value for name, value in state_dict.items() if isinstance(name, str) and isinstance(value, StoredTensor)
    }
    if not stored:
        raise RequestError(f"{checkpoint} has no tensors in {_describe(key)}; name a state dict with --key")
    copies = duplicates(stored)
    kept = {name: value for name, value in stored.items() if name not in copies}
    _write_new(output, _numbers(checkpoint, kept))
    others = [name for name in state_dict if name not in stored]
    others += [] if key is None else [name for name in content if name != key]
    return Imported(
        str(output),
        tensors=len(kept),
        parameters=sum(math.prod(tensor.shape) for tensor in kept.values()),
        checkpoint_key=key,
        copies=len(copies),
        left_out=tuple(sorted(map(printable, others))),
    )


def _require_file(checkpoint: Path) -> None:
    """Refuse a path that is not a readable file; the error says what is there instead."""
    if checkpoint.is_dir():
        files = sorted(path.name for path in checkpoint.iterdir() if path.is_file())
        raise RequestError(f"{checkpoint} is a folder; {in_folder(str(checkpoint), files, 'name')}")
    if not checkpoint.exists():
        raise RequestError(f"{checkpoint} does not exist; {instead_of(str(checkpoint), FolderStore())}")
    try:
        with checkpoint.open("rb"):
            pass
    except OSError as error:
        raise RequestError(f"{checkpoint} cannot be read ({reason_of(error)}); make it readable") from None


def _join(index: Path, output: Path | None) -> Imported:
    """Write the tensors of all files that an index names as one file."""
    output = output or index.with_name(index.name.removesuffix(INDEX_SUFFIX)).with_suffix(".safetensors")
    parts: dict[str, list[str]] = {}
    for name, part in json.loads(index.read_bytes())["weight_map"].items():
        parts.setdefault(str(part), []).append(name)
    if not parts:
        raise RequestError(f"{index} names no file; fetch it again")
    tensors: dict[str, Tensor] = {}
    for part, names in sorted(parts.items()):
        path = index.parent / part
        if path.name != part or not path.is_file():  # the name must not lead out of the folder
            raise RequestError(
                f"{index} names {printable(part)}, which is not beside it; fetch all files of the network"
            )
        found = _read_part(path)
        if missing := [name for name in names if name not in found]:
            raise RequestError(
                f"{path} has no tensor {printable(missing[0])}, which {index.name} lists; fetch both again"
            )
        tensors |= {name: found[name] for name in names}
    _write_new(output, tensors)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return Imported(str(output), tensors=len(tensors), parameters=parameters, files=len(parts))


def _read_part(part: Path) -> dict[str, Tensor]:
    _require_file(part)
    if not looks_like_safetensors(part):
        content = _content(part)
        return _numbers(part, {name: value for name, value in content.items() if isinstance(value, StoredTensor)})
    try:
        return safetensors.torch.load_file(part)
    except SafetensorError as error:
        raise RequestError(f"{part} is damaged ({printable(str(error))}); fetch it again") from None


def _numbers(checkpoint: Path, stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    _check(checkpoint, stored)
    try:
        return {name: _tensor(raw) for name, raw in read_tensors(checkpoint, stored)}
    except Exception as error:  # a damaged or hostile file may cause any error
        raise RequestError(f"{checkpoint} is damaged ({printable(repr(error))}); fetch it again") from None


def _content(checkpoint: Path) -> dict[Any, Any]:
    try:
        content = read_content(checkpoint, refuse_calls=True)
    except CallRefusedError as error:
        raise RequestError(
            f"{checkpoint} calls {printable(str(error))}, which could run code, so nothing was imported; save the "
            "state dict alone, where the file was made"
        ) from None
    except Exception as error:  # a damaged or hostile pickle may cause any error
        found = what_it_is(checkpoint) or f"{printable(repr(error))}; name a file of torch.save"
        raise RequestError(f"{checkpoint} was not written by torch.save: {found}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{checkpoint} holds no state dict; save the model's state_dict()")
    return content


def _check(checkpoint: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse tensors that safetensors cannot hold, or that would need far more memory than the file.

    Raises:
        RequestError: there is such a tensor, or the tensors are far larger than the file.
    """
    for name, tensor in tensors.items():
        if tensor.numbers.dtype.startswith("complex") or name == "__metadata__":
            raise RequestError(
                f"{checkpoint}: {printable(name)} cannot be stored as safetensors ({tensor.numbers.dtype} numbers); "
                "save the state dict without it, where the file was made"
            )
    size = checkpoint.stat().st_size
    total = sum(math.prod(tensor.shape) * ITEM_BYTES[tensor.numbers.dtype] for tensor in tensors.values())
    if total > _MAX_GROWTH * size:
        raise RequestError(
            f"{checkpoint}: its tensors would be {total:,} bytes, the file has {size:,}; save the state dict alone"
        )


def _tensor(raw: RawTensor) -> Tensor:
    stored = raw.stored
    dtype = getattr(torch, stored.numbers.dtype)
    numbers = torch.frombuffer(raw.data, dtype=dtype) if raw.data else torch.empty(0, dtype=dtype)
    view = numbers.as_strided(stored.shape, stored.strides, stored.offset)
    return view.clone(memory_format=torch.contiguous_format)  # in safetensors no two tensors share numbers


def _write_new(output: Path, tensors: dict[str, Tensor]) -> None:
    try:
        with written_aside(output, overwrite=False) as aside:
            safetensors.torch.save_file(tensors, aside)
    except FileExistsError:
        raise RequestError(f"{output} exists and is not overwritten; name another file with --output") from None
    except (OSError, SafetensorError, UnicodeError) as error:
        reason = printable(getattr(error, "strerror", None) or str(error))
        raise RequestError(
            f"{output} cannot be written: {reason}; check {output.parent} for room and rights, or name another file "
            "with --output"
        ) from None


def _describe(key: str | None) -> str:
    return "the file's state dict" if key is None else f"state dict {key!r}"
