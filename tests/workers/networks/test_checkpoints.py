"""The state dict that is meant is found by names alone, without torch, and described in words."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.networks.checkpoints import (
    USUAL_KEYS,
    choose_key,
    duplicates,
    looks_like_safetensors,
    recognise,
)
from smoothcert.workers.networks.inert_pickle import StoredNumbers, StoredTensor
from tests.helpers.checkpoints import LAYOUTS, VIT, network_of, prefixed


def test_error_lists_state_dicts_of_unusual_names(tmp_path: Path) -> None:
    """The job has to say which one is meant; then it is found."""
    network, file = network_of(VIT), tmp_path / "weights.pt"
    torch.save({"student": network.state_dict(), "teacher": network.state_dict(), "epoch": 3}, file)
    with pytest.raises(RequestError, match=r"no state dict of a usual name; it has: student, teacher; name one as mod"):
        recognise(file, None)
    assert recognise(file, "teacher").key == "teacher"


def test_error_about_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    """A file that ends too soon is named, without a traceback of the library that reads it."""
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network_of(VIT).state_dict(), file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(RequestError, match=r"weights\.safetensors is not a complete safetensors file") as error:
        recognise(file, None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_is_described_in_words(layout: str, tmp_path: Path) -> None:
    """`plan` shows the kind of file, the state dict and the prefix."""
    save, words = LAYOUTS[layout]
    torch.save(save(network_of(VIT)), tmp_path / "weights.pt")
    assert recognise(tmp_path / "weights.pt", None).layout == words


@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_the_layout_of_safetensors_is_described_in_words(prefix: str, tmp_path: Path) -> None:
    """Such a file is one state dict, so it has no key."""
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(prefixed(prefix, network_of(VIT).state_dict()), file)
    assert recognise(file, None) == (None, "safetensors" + (f", prefix {prefix!r}" if prefix else ""))


@given(st.lists(st.sampled_from(USUAL_KEYS), unique=True, min_size=1))
def test_averaged_weights_are_taken_before_others(keys: list[str]) -> None:
    """In timm's order, whatever the order in the file; a key that the job names wins."""
    content = {"optimizer": {}, **{key: {} for key in keys}, "epoch": 3}
    order = ["state_dict_ema", "model_ema", "state_dict", "model"]
    assert choose_key(content, None, "FILE") == min(keys, key=order.index)
    assert choose_key(content, "optimizer", "FILE") == "optimizer"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"model": {}, "args": {}}, "FILE has no state dict 'ema'; it has: model, args"),
        ({"a": 1}, r"FILE has no state dict 'ema'; the file is one state dict; use null \(no --key\)"),
    ],
)
def test_error_lists_the_keys_of_a_file_that_lacks_the_named_one(content: dict[str, object], says: str) -> None:
    """Or says that the file needs no key."""
    with pytest.raises(RequestError, match=rf"^model\.checkpoint_key: {says}$"):
        choose_key(content, "ema", "FILE")


def _stored(key: str) -> StoredTensor:
    return StoredTensor(StoredNumbers(key, "float32", 4), 0, (4,), (1,))


def test_only_copies_of_the_same_numbers_are_duplicates() -> None:
    """An attacker's tensor with numbers of its own is not a copy."""
    tensors = {
        "module.model.a": _stored("0"),
        "module.attacker.model.a": _stored("0"),
        "module.model.b": _stored("1"),
        "module.attacker.model.b": _stored("2"),
        "module.attacker.alone": _stored("3"),
    }
    assert duplicates(tensors) == ["module.attacker.model.a"]


@pytest.mark.parametrize(
    ("start", "looks_so"),
    [
        (b"", False),
        (b"\x02\0\0\0\0\0\0\0{}", True),
        (b"\x02\0\0\0\0\0\0\0", False),  # no header
        (b"\xff\0\0\0\0\0\0\0{}", False),  # the header is longer than the file
        (b"PK\x03\x04\0\0\0\0{}", False),  # a zip file
    ],
)
def test_safetensors_begin_with_the_length_of_their_header(start: bytes, looks_so: bool, tmp_path: Path) -> None:
    """Other files are read as torch's."""
    (tmp_path / "weights").write_bytes(start)
    assert looks_like_safetensors(tmp_path / "weights") is looks_so
