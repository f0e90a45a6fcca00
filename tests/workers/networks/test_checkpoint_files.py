"""If a user names something else than a checkpoint file, one line says what it is and what to write."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import boto3
import moto
import numpy as np
import pytest
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.workers.networks.checkpoint_files import require_checkpoint
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.storage import store as storage
from smoothcert.workers.storage.store import AnyStore

_INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, indent=2).encode()
_FOLDERS: dict[str, tuple[list[str], str]] = {
    "as save_pretrained makes it": (
        ["config.json", "model.safetensors"],
        r"is a folder; write model\.checkpoint: \S+/net/model\.safetensors$",
    ),
    "of an older one": (["config.json", "pytorch_model.bin"], r"write model\.checkpoint: \S+/net/pytorch_model\.bin$"),
    "of a training": (
        ["epoch-1.pt", "epoch-2.pt", "log.txt"],
        r"write model\.checkpoint: \S+/net/epoch-1\.pt \(it also holds epoch-2\.pt\)$",
    ),
    "in parts": (
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        r"its network is in parts; .*`smoothcert import-checkpoint \S*model\.safetensors\.index\.json` makes one file",
    ),
    "without weights": (
        ["config.json", "readme.md"],
        r"is a folder; it holds config\.json, readme\.md, so name a file",
    ),
    "with parts alone": (["model-00001-of-00002.safetensors"], r"it holds model-00001-of-00002\.safetensors, so name"),
}


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place for files, on this machine or in S3."""
    if request.param == "folder":
        return str(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    storage._s3.cache_clear()
    mock = moto.mock_aws()
    mock.start()
    request.addfinalizer(mock.stop)
    boto3.client("s3").create_bucket(Bucket="test")
    return "s3://test"


@pytest.mark.parametrize("case", _FOLDERS)
def test_error_about_a_folder_names_the_file_to_take(case: str, place: str) -> None:
    """That file exists, and the error never says that the folder does not."""
    names, says = _FOLDERS[case]
    store = AnyStore(Storage())
    for name in names:
        store.publish(f"{place}/net", name, b"x")
    for url in (f"{place}/net", f"{place}/net/"):
        with pytest.raises(RequestError) as error:
            require_checkpoint(url, store)
        assert re.search(says, str(error.value)), str(error.value)
        if named := re.search(r"write model\.checkpoint: (\S+)", str(error.value)):
            require_checkpoint(named[1], store)


def test_error_says_that_nothing_of_this_name_exists(place: str) -> None:
    """It is neither a file nor a folder."""
    with pytest.raises(RequestError, match="none does not exist; correct the name"):
        require_checkpoint(f"{place}/none", AnyStore(Storage()))


def test_error_about_a_misspelt_name_shows_near_names(place: str) -> None:
    """They are files of the same folder, as for tars."""
    store = AnyStore(Storage())
    for name in ("weights.pt", "notes.txt"):
        store.publish(f"{place}/net", name, b"x")
    with pytest.raises(RequestError, match=r"/net/wieghts\.pt does not exist; \S+/net/ holds weights\.pt; correct the"):
        require_checkpoint(f"{place}/net/wieghts.pt", store)


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("weights.pt"))
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()


def _torch() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer)
    return buffer.getvalue()


_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "an index": (
        lambda: _INDEX,
        "it is the index of a network in parts; `smoothcert import-checkpoint FILE` makes one",
    ),
    "a configuration": (lambda: b'{"architecture": "vit"}', "it is JSON, such as a network's configuration; name the"),
    "nested JSON": (lambda: b'{"a":' * 100_000, "it is JSON"),
    "damaged JSON": (lambda: b'{"architecture"', "it is JSON"),
    "a pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\n",
        "it is a Git LFS pointer; fetch the file itself with `git lfs pull`",
    ),
    "a web page": (
        lambda: b"\n<!DOCTYPE html><html></html>",
        "it is an HTML page, perhaps the error page of a download; download",
    ),
    "gzip": (lambda: gzip.compress(_torch()), "it is a gzip file; decompress it"),
    "a tar": (_tar, "it is a tar; extract it, and name the file in it"),
    "arrays of numpy": (_npz, "it is a zip archive; extract it, or save a plain state dict"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(600), "it is an HDF5 file; if Keras wrote it"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(600), "it is a zstd file; decompress it"),
    "a NumPy array": (lambda: b"\x93NUMPY\x01\0" + bytes(600), "it is a NumPy array; name a file of weights"),
    "a photograph": (lambda: b"\xff\xd8\xff\xe0" + bytes(600), "it is a JPEG image; name a file of weights"),
    "text": (lambda: b"Repository not found", "it is text ('Repository not found'); name a file of weights"),
    "nothing": (lambda: b"", "it is empty; fetch it again"),
}


@pytest.mark.parametrize("case", _FILES)
def test_error_says_what_kind_of_file_it_is(case: str, tmp_path: Path) -> None:
    """In one line, without the error of the library that could not read it."""
    make, says = _FILES[case]
    file = tmp_path / "weights.pt"
    file.write_bytes(make())
    with pytest.raises(RequestError) as error:
        recognise(file, None)
    assert f"is neither safetensors nor a torch file of tensors: {says}" in str(error.value)
    assert "Error(" not in str(error.value) and "\n" not in str(error.value)
