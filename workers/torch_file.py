"""A file of torch.save, read without torch.

Covered: the zip format and the one before torch 1.6, whatever pickle module wrote them.
Not covered: what may be in its pickle (inert_pickle.py), what it means (checkpoints.py); big-endian numbers.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

from workers.inert_pickle import ITEM_BYTES, InertUnpickler, StoredTensor

_LEGACY_PREAMBLE = 3  # magic number, protocol version, system info; then the object, then the keys of its numbers


class RawTensor(NamedTuple):
    """A tensor and the bytes of all the numbers that it is a view of."""

    stored: StoredTensor
    data: bytearray


def read_content(path: Path, *, refuse_calls: bool = False) -> Any:
    """The saved object: tensors are StoredTensors, objects of unknown classes Inert.

    Raises:
        CallRefusedError: the pickle calls something unknown, and `refuse_calls` is set.
        Exception: whatever a broken or hostile file provokes.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _unpickled(BytesIO(archive.read(f"{_folder(archive)}/data.pkl")), refuse_calls=refuse_calls)
    with path.open("rb") as file:
        return _legacy(file, refuse_calls=refuse_calls).content


def read_tensors(path: Path, tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, RawTensor]]:
    """The numbers of tensors that `read_content` gave, one tensor after the other.

    Raises:
        pickle.UnpicklingError, KeyError: they are not in the file.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            folder = _folder(archive)
            if f"{folder}/byteorder" in archive.namelist() and archive.read(f"{folder}/byteorder") != b"little":
                raise pickle.UnpicklingError("its numbers are big-endian")
            for name, tensor in tensors.items():
                member = archive.getinfo(f"{folder}/data/{tensor.numbers.key}")
                _check(name, tensor, member.file_size)
                yield name, RawTensor(tensor, bytearray(archive.read(member)))
        return
    with path.open("rb") as file:
        places = _legacy(file, refuse_calls=True).places
        for name, tensor in tensors.items():
            place, length = places[tensor.numbers.key]
            _check(name, tensor, length)
            file.seek(place)
            yield name, RawTensor(tensor, bytearray(file.read(length)))


def _check(name: str, tensor: StoredTensor, length: int) -> None:
    numbers = tensor.numbers
    if length != numbers.length * ITEM_BYTES[numbers.dtype] or math.prod(tensor.shape) > numbers.length:
        raise pickle.UnpicklingError(f"{name} is not in its {length} bytes")


def _folder(archive: zipfile.ZipFile) -> str:
    for name in archive.namelist():
        if name.endswith("/data.pkl"):
            return name.removesuffix("/data.pkl")
    raise pickle.UnpicklingError("it has no data.pkl")


def _unpickled(file: IO[bytes], *, refuse_calls: bool) -> Any:
    return InertUnpickler(file, refuse_calls=refuse_calls).load()


class _Legacy(NamedTuple):
    """The object of a file before torch 1.6; where the numbers of each key lie, and their length, in bytes."""

    content: Any
    places: dict[str, tuple[int, int]]


def _legacy(file: IO[bytes], *, refuse_calls: bool) -> _Legacy:
    first = _unpickled(file, refuse_calls=refuse_calls)
    if isinstance(first, dict):
        return _Legacy(first, {})  # a pickle in which torch had no part
    for _ in range(_LEGACY_PREAMBLE - 1):
        _unpickled(file, refuse_calls=refuse_calls)
    unpickler = InertUnpickler(file, refuse_calls=refuse_calls)
    content = unpickler.load()
    places = {}
    for key in _unpickled(file, refuse_calls=refuse_calls):
        (count,) = struct.unpack("<q", file.read(8))
        places[key] = file.tell(), count * ITEM_BYTES[unpickler.numbers[key].dtype]
        file.seek(places[key][1], 1)
    return _Legacy(content, places)
