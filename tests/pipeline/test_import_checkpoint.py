"""`smoothcert import-checkpoint`: pickles become safetensors, and nothing in them is run."""

import builtins
import errno
import json
import os
import pickle
import re
import subprocess
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dill
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner, Result

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.pipeline.cli import app
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.networks.classifiers import build_classifier, load_classifier
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed_vit import SmoothedViT
from tests.helpers import reference

_PREPROCESS = Preprocess(resize=None, crop=16, mean=reference.MEAN, std=reference.STD)
_OPTIONS = {"patch_size": 4, "depth": 2, "embed_dim": 64, "num_heads": 2}
_MODEL = Model(architecture="vit_tiny_patch16_224", options=_OPTIONS, checkpoint="none", classes=5)


def _import(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["import-checkpoint", *map(str, arguments)])


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = build_classifier(_MODEL, 16).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    return network


def _logits(network: nn.Module) -> torch.Tensor:
    images = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    geometry = ablations_of(WindowAblation(kind="column", size=4), 16, 16)
    engine = SmoothedViT(
        network, geometry, preprocess=_PREPROCESS, format=Format.of(_MODEL), device=torch.device("cpu")
    )
    return engine.logits(images)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_reference_layout_votes_as_before(legacy: bool, tmp_path: Path) -> None:
    """torch refuses the file, and says how to go on; what is imported of it votes as the network that was saved."""
    network = _network()
    file = reference.save(network, tmp_path / "checkpoint.pt.best", legacy=legacy, best=np.float64(57.5))
    with pytest.raises(RequestError, match="`smoothcert import-checkpoint FILE` writes its weights as safetensors"):
        load_classifier(_MODEL, _PREPROCESS, file, "model")
    result = _import(file)
    assert result.exit_code == 0, result.output
    imported = tmp_path / "checkpoint.pt.safetensors"
    own = network.state_dict()
    numbers = sum(value.numel() for value in own.values()) + 12
    assert result.stdout == (
        f"{imported}: {len(own) + 4} tensors with {numbers:,} parameters of state dict 'model', names as they were; "
        f"left out: {len(own)} copies, amp, args, best, epoch, optimizer, schedule, types\n"
    )
    assert recognise(imported, None).layout == "reference layout, prefix 'module.model.model.'"
    loaded = load_classifier(_MODEL, _PREPROCESS, imported, None)
    assert torch.equal(_logits(loaded), _logits(network))


_TENSORS = {
    "view": torch.arange(12.0)[3:9].reshape(2, 3).T,
    "scalar": torch.tensor(7),
    "empty": torch.empty(0, 3),
    "empty whole numbers": torch.empty(0, dtype=torch.int64),
    "half": torch.randn(5).half(),
    "bfloat16": torch.randn(2, 3).bfloat16(),
    "double": torch.randn(3, dtype=torch.float64),
    "bool": torch.tensor([True, False]),
    "uint8": torch.tensor([255, 0], dtype=torch.uint8),
    "parameter": nn.Parameter(torch.randn(2)),
}


@pytest.mark.parametrize("pickle_module", [pickle, dill])
@pytest.mark.parametrize("legacy", [False, True])
def test_every_tensor_arrives(pickle_module: Any, legacy: bool, tmp_path: Path) -> None:
    """Number formats, views, scalars and parameters are what torch itself reads, in a file of torch of any age."""
    file, output = tmp_path / "weights.pt", tmp_path / "imported"
    content = {"state_dict": _TENSORS, "other": {"state_dict": {"x": torch.ones(2)}}}
    torch.save(content, file, pickle_module=pickle_module, _use_new_zipfile_serialization=not legacy)
    assert _import(file, "--output", output, "--key", "state_dict").exit_code == 0
    there = safetensors.torch.load_file(output)
    assert there.keys() == _TENSORS.keys()
    for name, tensor in _TENSORS.items():
        assert there[name].dtype == tensor.dtype
        assert torch.equal(there[name], tensor)


def _call(function: Callable[..., Any], *arguments: object) -> object:
    """An object in whose pickle a function is called."""

    class Calls:
        def __reduce__(self) -> tuple[Any, ...]:
            return function, arguments

    return Calls()


def _file_that(content: object, folder: Path, how: str) -> Path:
    path = folder / "hostile.pt"
    if how == "bare":
        path.write_bytes(dill.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip", pickle_module=dill)
    return path


# Under the names that the file has, some of which are Python 2's.
_HOSTILE: dict[str, Callable[[str], object]] = {
    "posix.system": lambda touched: _call(os.system, f"touch {touched}"),
    "builtins.exec": lambda touched: _call(exec, f"open({touched!r}, 'w')"),
    "builtins.eval": lambda touched: _call(eval, f"open({touched!r}, 'w')"),
    "io.open": lambda touched: _call(open, touched, "w"),
    "builtins.getattr": lambda touched: _call(getattr, "text", "upper"),
    "builtins.__import__": lambda touched: _call(builtins.__import__, "antigravity"),
    "commands.Popen": lambda touched: _call(subprocess.Popen, ["touch", touched]),
    f"{Path.__module__}.Path": lambda touched: _call(Path, touched),
    "dill._dill._create_code": lambda touched: lambda: Path(touched).touch(),  # a function is made of its code first
    "dill._dill._create_function": lambda touched: _call(dill._dill._create_function, None, {}),
    "argparse.Namespace": lambda touched: _call(Namespace),
}


@pytest.mark.parametrize("how", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("name", _HOSTILE)
def test_a_pickle_that_calls_something_is_refused(name: str, how: str, tmp_path: Path) -> None:
    """One line names the call, wherever it is nested; exit code 2; nothing is run, nothing is written."""
    touched = tmp_path / "touched"
    content = {"schedule": [{"lambdas": (_HOSTILE[name](str(touched)),)}]}
    file = _file_that(content, tmp_path, how)
    result = _import(file)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert name in result.stderr
    assert "which could run code" in result.stderr
    assert not touched.exists()
    assert list(tmp_path.iterdir()) == [file]


def test_a_pickle_that_would_run_does_run_elsewhere(tmp_path: Path) -> None:
    """The hostile files of the test above are what they should be: pickle itself runs them."""
    touched = tmp_path / "touched"
    pickle.loads(pickle.dumps([_HOSTILE["posix.system"](str(touched))]))
    assert touched.exists()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda file: None, "weights.pt does not exist; correct the name"),
        (lambda file: file.mkdir(), "is a folder; it holds no file; name one"),
        (lambda file: file.write_bytes(b""), "was not written by torch.save"),
        (lambda file: file.write_bytes(b"\x80\x02]."), "was not written by torch.save"),
        (lambda file: torch.save([torch.ones(2)], file), "holds no state dict"),
        (lambda file: torch.save({"a": 1}, file), "has no tensors"),
        (lambda file: safetensors.torch.save_file({"a": torch.ones(2)}, file), "is safetensors already"),
        (lambda file: _truncate(file), "was not written by torch.save"),
    ],
)
def test_what_cannot_be_imported_is_one_line(make: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    """Exit code 2, and nothing is written."""
    file = tmp_path / "weights.pt"
    make(file)
    result = _import(file)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert says in result.stderr
    assert not (tmp_path / "weights.safetensors").exists()


def _truncate(file: Path) -> None:
    torch.save({"a": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:2000])


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """An output that exists stays as it is."""
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt")
    (tmp_path / "weights.safetensors").write_text("mine")
    result = _import(tmp_path / "weights.pt")
    assert result.exit_code == 2
    assert "is not overwritten" in result.stderr
    assert (tmp_path / "weights.safetensors").read_text() == "mine"


def test_views_of_the_same_numbers(tmp_path: Path) -> None:
    """Parameters that are slices of one vector, as some optimizers keep them, each arrive alone."""
    flat = torch.arange(3000.0)
    torch.save({f"w{n}": flat[1000 * n : 1000 * n + 1000] for n in range(3)}, tmp_path / "weights.pt")
    assert _import(tmp_path / "weights.pt").exit_code == 0
    there = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert torch.equal(torch.cat([there[f"w{n}"] for n in range(3)]), flat)
    torch.save({f"w{n}": flat for n in range(100)}, tmp_path / "many.pt")
    result = _import(tmp_path / "many.pt")
    assert "its tensors would be 1,200,000 bytes" in result.stderr


def test_an_old_file_with_more_than_weights(tmp_path: Path) -> None:
    """Before torch 1.6 a module lay beside its source, a storage of complex numbers beside others."""
    content = {"state_dict": {"a": torch.ones(2)}, "criterion": nn.CrossEntropyLoss(), "z": torch.ones(2) * 1j}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=False)
    result = _import(tmp_path / "weights.pt")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("left out: criterion, z\n")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({0: torch.ones(2)}, "has no tensors"),
        ({"__metadata__": torch.ones(2), "a": torch.ones(2)}, "__metadata__ cannot be stored as safetensors"),
        ({"z": torch.ones(2) * 1j}, r"z cannot be stored as safetensors \(complex64 numbers\)"),
        ({"model": nn.Linear(2, 2), "epoch": 3}, "not a state dict but an object of torch.nn.modules.linear.Linear, w"),
        (
            {"student": {"a": torch.ones(2)}, "best": torch.tensor(5.0)},
            "no state dict of a usual name; it has: student",
        ),
        ({"a\x1b[2J\n": {"a": torch.ones(2)}}, r"it has: 'a\\x1b\[2J\\n'; name one"),
        ({"a" * 5000: {"a": torch.ones(2)}}, "it has: a{40}[.]{3}a{40}; name one"),
    ],
)
def test_contents_that_cannot_be_imported(content: object, says: str, tmp_path: Path) -> None:
    """One line of printable text, whatever the names in the file are."""
    torch.save(content, tmp_path / "weights.pt")
    result = _import(tmp_path / "weights.pt")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.strip().isprintable()
    assert re.search(says, result.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_a_compressed_file_is_none_of_torch(tmp_path: Path) -> None:
    """A few kilobytes could hold gigabytes."""
    torch.save({"a": torch.ones(2)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "weights.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert "is compressed, which torch does not do" in _import(tmp_path / "weights.pt").stderr
    with pytest.raises(RequestError, match="is compressed"):
        recognise(tmp_path / "weights.pt", None)


def test_what_lies_behind_a_file_is_not_the_file(tmp_path: Path) -> None:
    """torch reads the beginning, so what is imported and what a job loads is the same."""
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "weights.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict_ema": {"a": torch.zeros(2)}}, tmp_path / "behind.pt")
    with (tmp_path / "weights.pt").open("ab") as file:
        file.write((tmp_path / "behind.pt").read_bytes())
    assert recognise(tmp_path / "weights.pt", None).key == "model"
    assert _import(tmp_path / "weights.pt").exit_code == 0
    assert safetensors.torch.load_file(tmp_path / "weights.safetensors")["a"].tolist() == [1, 1]


def _in_parts(folder: Path, suffix: str) -> tuple[Path, dict[str, torch.Tensor]]:
    """An index beside two files, each with a half of a network."""
    weights = _network().state_dict()
    names, stem = list(weights), {"safetensors": "model", "bin": "pytorch_model"}[suffix]
    parts = {f"{stem}-0000{part}-of-00002.{suffix}": names[part - 1 :: 2] for part in (1, 2)}
    for part, held in parts.items():
        tensors = {name: weights[name] for name in held}
        if suffix == "bin":
            torch.save(tensors, folder / part)
        else:
            safetensors.torch.save_file(tensors, folder / part)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {n: part for part in parts for n in parts[part]}}))
    return index, weights


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_network_in_parts_becomes_one_file(suffix: str, tmp_path: Path) -> None:
    """Every tensor of every part, under its own name; the file fits the job."""
    index, weights = _in_parts(tmp_path, suffix)
    result = _import(index)
    assert result.exit_code == 0, result.output
    output = tmp_path / f"{index.name.split('.')[0]}.safetensors"
    assert result.stdout.startswith(f"{output}: {len(weights)} tensors with ")
    loaded = load_classifier(_MODEL, _PREPROCESS, output, None).state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (
            lambda index: index.with_name("model-00002-of-00002.safetensors").unlink(),
            "is not beside it; fetch all files",
        ),
        (lambda index: index.write_text('{"weight_map": {"a": "../x.safetensors"}}'), "is not beside it"),
        (lambda index: index.write_text('{"weight_map": {"a": 3}}'), "is not beside it"),
        (lambda index: index.write_text('{"weight_map": {}}'), "names no file"),
        (
            lambda index: index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'),
            "model-00001-of-00002.safetensors has no tensor a, which",
        ),
        (lambda index: _cut(index.with_name("model-00001-of-00002.safetensors")), "is damaged"),
        (lambda index: index.with_name("model.safetensors").touch(), "exists and is not overwritten"),
    ],
)
def test_parts_that_do_not_make_a_network(edit: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    """One line names what is missing, and nothing is written."""
    index, _ = _in_parts(tmp_path, "safetensors")
    edit(index)
    before = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    result = _import(index)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert says in result.stderr
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == before


def test_an_index_has_no_key(tmp_path: Path) -> None:
    """What is asked for and cannot be done is refused, not ignored."""
    index, _ = _in_parts(tmp_path, "bin")
    result = _import(index, "--key", "model")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "is the index of a network in parts, which has no keys; leave out --key" in result.stderr


def test_what_is_not_a_file_to_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is answered with the file in it, a misspelt name with near ones, one without rights with that."""
    index, _ = _in_parts(tmp_path, "bin")
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt")
    assert f"{tmp_path} is a folder; its network is in parts; `smoothcert import-checkpoint {index}`" in _line(tmp_path)
    index.unlink()
    assert f"{tmp_path} is a folder; name {tmp_path}/weights.pt" in _line(tmp_path)
    assert f"wieghts.pt does not exist; {tmp_path}/ holds weights.pt; correct" in _line(tmp_path / "wieghts.pt")
    monkeypatch.setattr(Path, "open", _refuse)  # as root, every file may be read
    assert "weights.pt cannot be read (Permission denied); make it readable" in _line(tmp_path / "weights.pt")


def test_a_part_without_rights_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index may be read, and a part of it may not."""
    index, _ = _in_parts(tmp_path, "bin")
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: (opened if path == index else _refuse)(path, *a, **k))
    assert "00001-of-00002.bin cannot be read (Permission denied)" in _line(index)


def _refuse(path: Path, *_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def _line(file: Path) -> str:
    result = _import(file)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    return result.stderr


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_json_counts_what_the_line_says(tmp_path: Path) -> None:
    """For a torch file and for a network in parts."""
    file = reference.save(_network(), tmp_path / "checkpoint.pt.best", best=np.float64(57.5))
    index, weights = _in_parts(tmp_path, "bin")
    parts = len(set(json.loads(index.read_text())["weight_map"].values()))
    found, joined = (
        json.loads(CliRunner().invoke(app, ["import-checkpoint", str(path), "--json"]).stdout) for path in (file, index)
    )
    written = safetensors.torch.load_file(found["path"])
    assert (found["tensors"], found["parameters"]) == (len(written), sum(one.numel() for one in written.values()))
    assert (found["checkpoint_key"], found["files"], found["copies"]) == ("model", 1, len(_network().state_dict()))
    assert found["left_out"] == ["amp", "args", "best", "epoch", "optimizer", "schedule", "types"]
    assert (joined["tensors"], joined["files"], joined["left_out"]) == (len(weights), parts, [])
