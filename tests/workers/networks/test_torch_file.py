"""A file of torch.save is read without torch, and holds what torch itself finds in it."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import dill
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smoothcert.workers.networks.inert_pickle import CallRefusedError, Inert, StoredTensor
from smoothcert.workers.networks.torch_file import RawTensor, read_content, read_tensors


def _tensor(raw: RawTensor) -> Tensor:
    """By torch, of the bytes that were read."""
    numbers = torch.frombuffer(raw.data, dtype=getattr(torch, raw.stored.numbers.dtype)) if raw.data else torch.empty(0)
    return numbers.as_strided(raw.stored.shape, raw.stored.strides, raw.stored.offset)


def _save(content: object, path: Path, *, legacy: bool = False, pickle_module: Any = pickle) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy, pickle_module=pickle_module)
    return path


def _read(path: Path) -> dict[str, Tensor]:
    stored = {name: value for name, value in read_content(path).items() if isinstance(value, StoredTensor)}
    return {name: _tensor(raw) for name, raw in read_tensors(path, stored)}


@pytest.mark.parametrize("pickle_module", [pickle, dill])
@pytest.mark.parametrize("legacy", [False, True])
@given(data=st.data())
def test_tensors_are_those_that_torch_reads(
    legacy: bool, pickle_module: Any, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Slices and transposed views of shared numbers, in every number format."""
    content: dict[str, Tensor] = {}
    for name in data.draw(st.sets(st.sampled_from(["a", "b.c", "\u00e9"]), min_size=1)):
        dtype = data.draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]))
        numbers = torch.arange(24).reshape(2, 3, 4).to(dtype)
        start = data.draw(st.integers(0, 1))
        content[name] = numbers[start:, :, ::2] if data.draw(st.booleans()) else numbers.transpose(0, 2)[start:]
        content[f"view of {name}"] = content[name][0]
    path = _save(content, tmp_path_factory.mktemp("file") / "a.pt", legacy=legacy, pickle_module=pickle_module)
    there, here = torch.load(path, weights_only=True), _read(path)
    assert there.keys() == here.keys()
    for name, tensor in here.items():
        assert tensor.dtype == there[name].dtype
        assert torch.equal(tensor, there[name])


@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_the_same_numbers_share_their_bytes(legacy: bool, tmp_path: Path) -> None:
    """A hundred views of a large tensor take the memory of one."""
    flat = torch.arange(12.0)
    path = _save({"a": flat[:6], "b": flat[6:]}, tmp_path / "a.pt", legacy=legacy)
    one, other = (raw for _, raw in read_tensors(path, read_content(path)))
    assert one.data is other.data


@pytest.mark.parametrize("legacy", [False, True])
def test_objects_of_unknown_classes_become_inert_or_are_refused(legacy: bool, tmp_path: Path) -> None:
    """Nothing of them is imported or run."""
    path = _save({"a": torch.ones(1), "path": Path("x")}, tmp_path / "a.pt", legacy=legacy)
    assert isinstance(read_content(path)["path"], Inert)
    with pytest.raises(CallRefusedError, match=r"pathlib\.\w+"):
        read_content(path, refuse_calls=True)


def _edited(path: Path, name: str, data: bytes | None) -> Path:
    """The file with other bytes in a member, or without it if they are None."""
    other = path.with_name("edited.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for member in old.namelist():
            if not member.endswith(name):
                new.writestr(member, old.read(member))
            elif data is not None:
                new.writestr(member, data)
    return other


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("/byteorder", b"big", "its numbers are big-endian"),
        ("/data.pkl", None, r"it has no data\.pkl"),
        ("/data/0", bytes(8), "a is not in its 8 bytes"),  # cut
        ("/data/0", bytes(400), "a is not in its 400 bytes"),
    ],
)
def test_a_file_that_does_not_hold_its_tensors_is_refused(
    name: str, data: bytes | None, says: str, tmp_path: Path
) -> None:
    """Numbers are not made up, and not read from elsewhere."""
    path = _edited(_save({"a": torch.ones(3)}, tmp_path / "a.pt"), name, data)
    with pytest.raises(pickle.UnpicklingError, match=says):
        _read(path)


def test_a_compressed_file_is_refused(tmp_path: Path) -> None:
    """torch compresses none, and a few kilobytes could hold gigabytes."""
    path = _save({"a": torch.ones(3)}, tmp_path / "a.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    with pytest.raises(pickle.UnpicklingError, match="is compressed, which torch does not do"):
        read_content(tmp_path / "b.pt")


@pytest.mark.parametrize("cut", [1, 10, 100])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_ends_too_soon_is_an_exception(legacy: bool, cut: int, tmp_path: Path) -> None:
    """Whatever is cut off, no tensor of other numbers comes out."""
    path = _save({"a": torch.ones(100)}, tmp_path / "a.pt", legacy=legacy)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises((pickle.UnpicklingError, zipfile.BadZipFile, EOFError)):
        _read(path)
