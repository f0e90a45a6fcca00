"""The tensors of a file are read without running anything in it, and those that a job ignores are left out."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.networks.weights import is_like, read_weights, without_ignored
from tests.helpers.checkpoints import VIT, error_of, load, network_of


def test_a_name_in_the_file_is_taken_literally(tmp_path: Path) -> None:
    """`model.ignore` may name a tensor as it is, whatever characters its name has."""
    content = network_of(VIT).state_dict() | {"loss[0].w": torch.ones(3)}
    loaded = load(content, VIT.model_copy(update={"ignore": ("loss[0].w",)}), tmp_path)
    assert loaded.state_dict().keys() == network_of(VIT).state_dict().keys()


@pytest.mark.parametrize(
    ("ignore", "says"),
    [
        (("criterion.*",), r"^model\.ignore: no tensor of FILE has a name like 'criterion\.\*'; correct the pattern"),
        (("norm.*", "HEAD.*"), r"^model\.ignore: no tensor of FILE has a name like 'HEAD\.\*'"),
    ],
)
def test_error_names_a_pattern_that_matches_nothing(ignore: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """A misspelt pattern would otherwise leave nothing out."""
    error = error_of(network_of(VIT).state_dict(), VIT.model_copy(update={"ignore": ignore}), tmp_path)
    assert re.search(says, error), error


@given(
    names=st.sets(st.text("ab.*?[]!", min_size=1, max_size=5), min_size=1, max_size=8),
    patterns=st.lists(st.text("ab.*?[]!", min_size=1, max_size=4), max_size=3),
)
def test_what_is_left_is_what_no_pattern_matches(names: set[str], patterns: list[str]) -> None:
    """Every tensor is kept or matches a pattern, and its numbers do not change."""
    weights = {name: torch.tensor(float(number)) for number, name in enumerate(sorted(names))}
    matched = {name for name in names for pattern in patterns if is_like(name, pattern)}
    unused = [pattern for pattern in patterns if not any(is_like(name, pattern) for name in names)]
    if unused:
        with pytest.raises(RequestError, match=r"^model\.ignore: no tensor of FILE has a name like "):
            without_ignored(weights, patterns, "FILE")
        return
    kept = without_ignored(weights, patterns, "FILE")
    assert kept.keys() == names - matched
    assert all(kept[name] is weights[name] for name in kept)


@pytest.mark.parametrize(
    ("name", "pattern", "matches"),
    [
        ("head.weight", "head.*", True),
        ("head.weight", "HEAD.*", False),  # case matters
        ("my.head.weight", "head.*", False),  # from the start
        ("head", "head.*", False),
        ("a1", "a[0-9]", True),
        ("a[0-9]", "a[0-9]", True),  # the name itself
        ("ab", "a?", True),
    ],
)
def test_a_pattern_matches_whole_names_or_itself(name: str, pattern: str, matches: bool) -> None:
    """As a shell does it, with case."""
    assert is_like(name, pattern) is matches


@pytest.mark.parametrize("kind", ["safetensors", "torch", "torch with a key"])
def test_every_tensor_of_a_file_is_read_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """Numbers beside the tensors, such as an epoch, are left out."""
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
    file, key = tmp_path / "weights", "model" if kind == "torch with a key" else None
    if kind == "safetensors":
        safetensors.torch.save_file(weights, file)
    else:
        content: dict[Any, Any] = weights | {"epoch": 3, 7: torch.ones(1)}
        torch.save({key: content, "other": {"c": torch.ones(1)}} if key else content, file)
    read = read_weights(file, key, "FILE")
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


class _Calls:
    """Its pickle makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path: Path) -> None:
    """The error names the command that imports the weights of such a file."""
    made = tmp_path / "made"
    torch.save({"model": {"a": torch.ones(1)}, "args": _Calls(made)}, tmp_path / "weights.pt")
    with pytest.raises(RequestError, match="could run code, so it was not loaded; `smoothcert import-checkpoint FILE`"):
        read_weights(tmp_path / "weights.pt", "model", "FILE")
    assert not made.exists()
    pickle.loads(pickle.dumps(_Calls(made)))  # this pickle does run elsewhere
    assert made.exists()


@pytest.mark.parametrize(
    ("content", "key", "says"),
    [
        ([torch.ones(1)], None, "FILE holds a list, not a state dict"),
        ({"model": torch.ones(1)}, "model", "FILE holds a Tensor, not a state dict"),
        ({"model": {}}, "none", "FILE cannot be read"),
    ],
)
def test_error_says_what_a_file_without_a_state_dict_holds(
    content: object, key: str | None, says: str, tmp_path: Path
) -> None:
    """One line, with what to save instead if the file cannot be read."""
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(RequestError) as error:
        read_weights(tmp_path / "weights.pt", key, "FILE")
    assert str(error.value).startswith(f"model.checkpoint: {says}")
    assert "\n" not in str(error.value)
