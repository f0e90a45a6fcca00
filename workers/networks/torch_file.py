"""A file of torch.save, read without torch.

Covered: the zip format and the format before torch 1.6, written with any pickle module.
Not covered: what may be in its pickle (inert_pickle.py), what it means (checkpoints.py); big-endian numbers.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

from smoothcert.workers.networks.inert_pickle import ITEM_BYTES, InertUnpickler, StoredTensor

_LEGACY_PREAMBLE = 3  # magic number, protocol version, system info; then the object, then the keys of its numbers


class RawTensor(NamedTuple):
    """A tensor, and the bytes of the numbers that it views; all views of the same numbers share one bytearray."""

    stored: StoredTensor
    data: bytearray


def read_content(path: Path, *, refuse_calls: bool = False) -> Any:
    """The saved object: tensors are StoredTensors, objects of unknown classes Inert.

    Raises:
        CallRefusedError: the pickle calls something unknown, and `refuse_calls` is set.
        Exception: a damaged or hostile file may cause any error.
    """
    if _is_zip(path):
        with zipfile.ZipFile(path) as archive:
            pickled = BytesIO(_member(archive, f"{_folder(archive)}/data.pkl"))
            return InertUnpickler(pickled, refuse_calls=refuse_calls).load()
    with path.open("rb") as file:
        return _legacy(file, refuse_calls=refuse_calls).content


def read_tensors(path: Path, tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, RawTensor]]:
    """The numbers of tensors that `read_content` returned, one tensor after the other.

    Raises:
        pickle.UnpicklingError, KeyError: they are not in the file.
    """
    seen: dict[str, bytearray] = {}
    with _numbers_of(path) as read:
        for name, tensor in tensors.items():
            key = tensor.numbers.key
            if key not in seen:
                seen[key] = bytearray(read(key))
            _check(name, tensor, len(seen[key]))
            yield name, RawTensor(tensor, seen[key])


@contextmanager
def _numbers_of(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Give a function that reads the numbers of a key."""
    if _is_zip(path):
        with zipfile.ZipFile(path) as archive:
            folder = _folder(archive)
            if f"{folder}/byteorder" in archive.namelist() and _member(archive, f"{folder}/byteorder") != b"little":
                raise pickle.UnpicklingError("its numbers are big-endian")
            yield lambda key: _member(archive, f"{folder}/data/{key}")
        return
    with path.open("rb") as file:
        places = _legacy(file, refuse_calls=True).places

        def read(key: str) -> bytes:
            place, length = places[key]
            file.seek(place)
            return file.read(length)

        yield read


def _check(name: str, tensor: StoredTensor, length: int) -> None:
    """Check that a tensor lies within its numbers, and has no more of them than there are."""
    numbers, count = tensor.numbers, math.prod(tensor.shape)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((side - 1) * stride for side, stride in steps)
    inside = count == 0 or (count <= numbers.length and last < numbers.length)
    if length != numbers.length * ITEM_BYTES[numbers.dtype] or not inside:
        raise pickle.UnpicklingError(f"{name} is not in its {length} bytes")


def _is_zip(path: Path) -> bool:
    """Whether the file begins as a zip archive (torch's own rule); an older file may have a zip archive at its end."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of the archive. torch compresses none, so none is larger than the archive."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"{name} is compressed, which torch does not do")
    return archive.read(member)


def _folder(archive: zipfile.ZipFile) -> str:
    for name in archive.namelist():
        if name.endswith("/data.pkl"):
            return name.removesuffix("/data.pkl")
    raise pickle.UnpicklingError("it has no data.pkl")


class _Legacy(NamedTuple):
    """The object of a file before torch 1.6; position and length, in bytes, of the numbers of each key."""

    content: Any
    places: dict[str, tuple[int, int]]


def _legacy(file: IO[bytes], *, refuse_calls: bool) -> _Legacy:
    first = InertUnpickler(file, refuse_calls=refuse_calls).load()
    if isinstance(first, dict):
        return _Legacy(first, {})  # a plain pickle, not written by torch
    for _ in range(_LEGACY_PREAMBLE - 1):
        InertUnpickler(file, refuse_calls=refuse_calls).load()
    unpickler = InertUnpickler(file, refuse_calls=refuse_calls)
    content = unpickler.load()
    places = {}
    for key in InertUnpickler(file, refuse_calls=refuse_calls).load():
        (count,) = struct.unpack("<Q", file.read(8))
        places[key] = file.tell(), count * ITEM_BYTES[unpickler.numbers[key].dtype]
        file.seek(places[key][1], 1)
    return _Legacy(content, places)
