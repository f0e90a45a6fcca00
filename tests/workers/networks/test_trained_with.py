"""The note in a file of weights: it is read as it was written, and no other file is taken for one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from smoothcert.workers.networks.trained_with import metadata_of, trained_with
from tests.helpers.trainings import small_training


def test_the_note_has_what_a_job_repeats(tmp_path: Path) -> None:
    """Network, pixels and ablations."""
    training = small_training(tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights", metadata_of(training))
    note = trained_with(tmp_path / "weights")
    assert note is not None
    assert (note.architecture, note.options, note.classes) == (
        training.model.architecture,
        training.model.options,
        training.model.classes,
    )
    assert (note.preprocess, note.ablation) == (training.preprocess, training.ablation)


def test_whole_images_are_no_ablation(tmp_path: Path) -> None:
    """As the training file says it."""
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights", metadata_of(small_training(tmp_path, ablation=None)))
    note = trained_with(tmp_path / "weights")
    assert note is not None and note.ablation is None


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"smoothcert.training": "{}"}, {"smoothcert.training": ""}]
)
def test_other_weights_have_none(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    """Those of a later version, too."""
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights", metadata)
    assert trained_with(tmp_path / "weights") is None


@pytest.mark.parametrize("changes", [{"ablation": []}, {"architecture": "python:somewhere:network"}])
def test_a_note_that_no_training_writes_is_none(changes: dict[str, object], tmp_path: Path) -> None:
    """Code above all: a file of weights never names what runs."""
    ((key, note),) = metadata_of(small_training(tmp_path)).items()
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights", {key: json.dumps(json.loads(note) | changes)})
    assert trained_with(tmp_path / "weights") is None


def test_a_file_of_torch_has_none(tmp_path: Path) -> None:
    """It is no safetensors file."""
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights")
    assert trained_with(tmp_path / "weights") is None
