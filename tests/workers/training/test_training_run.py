"""A training in storage: begun once, continued from its newest checkpoint, finished with its weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.manifests.training import Training
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.curves import Figures
from smoothcert.workers.training.training_run import TrainingRun
from tests.helpers.trainings import small_training

IDENTITY: dict[str, Any] = {"epochs": 2, "optimizer": {"lr": 0.1}}
CURVE = [Figures(epoch, 0.1, 1.0 / epoch, None, 10, 0, 1.0) for epoch in (1, 2, 3)]


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return small_training(tmp_path)


@pytest.fixture
def run(training: Training) -> TrainingRun:
    return TrainingRun(training, AnyStore(Storage()))


def names_in(run: TrainingRun, folder: str = "") -> set[str]:
    return {path.name for path in Path(run.url, folder).iterdir() if path.is_file() and path.suffix != ".png"}


def test_training_json_is_written_first_and_once(run: TrainingRun, training: Training) -> None:
    """Whoever continues with the same identity changes nothing."""
    run.begin(IDENTITY, [3, 4])
    written = Path(run.url, "training.json").read_text()
    assert json.loads(written) == {
        "training": training.model_dump(mode="json"),
        "identity": IDENTITY,
        "images": [3, 4],
    }
    run.begin(IDENTITY, None)
    assert Path(run.url, "training.json").read_text() == written


def test_another_training_in_the_folder_is_refused(run: TrainingRun) -> None:
    """The error names the keys that differ."""
    run.refuse_others(IDENTITY)  # nothing is there yet
    run.begin(IDENTITY, None)
    run.refuse_others(IDENTITY)
    for refuse in (run.refuse_others, lambda identity: run.begin(identity, None)):
        with pytest.raises(RequestError, match=r"was begun with other epochs, optimizer\.lr; put the old values back"):
            refuse({"epochs": 3, "optimizer": {"lr": 0.2}})


@pytest.mark.parametrize("counts", [None, [3, 4]])
def test_images_are_counted_once(run: TrainingRun, counts: list[int] | None) -> None:
    """The counts are those of training.json, if it has them."""
    assert run.image_counts() is None
    run.begin(IDENTITY, counts)
    assert run.image_counts() == counts


@pytest.mark.parametrize("content", ["", "{", "[]", '{"training": {}}'])
def test_a_damaged_training_json_is_one_line(run: TrainingRun, content: str) -> None:
    """It names the file and what to do."""
    Path(run.url).mkdir(parents=True)
    Path(run.url, "training.json").write_text(content)
    with pytest.raises(RequestError, match=r"training\.json is damaged \(.*\); restore it, or use another name$"):
        run.refuse_others(IDENTITY)


def test_the_newest_checkpoint_replaces_the_older_ones(run: TrainingRun) -> None:
    """With its curve so far; its state is what was saved."""
    assert run.epochs_done() == 0
    for epochs in (1, 2):
        run.publish_checkpoint({"weights": torch.full((2,), epochs)}, CURVE[:epochs])
        assert run.epochs_done() == epochs
        assert names_in(run, "checkpoints") == {f"epoch-000{epochs}.pt", f"epoch-000{epochs}.jsonl"}
    assert run.load(2)["weights"].tolist() == [2, 2]


def test_a_curve_without_its_checkpoint_does_not_count(run: TrainingRun) -> None:
    """The curve is published first."""
    run.publish_checkpoint({}, CURVE[:1])
    Path(run.url, "checkpoints", "epoch-0002.jsonl").touch()
    assert run.epochs_done() == 1


def test_a_checkpoint_that_only_another_machine_sees_is_an_error(run: TrainingRun) -> None:
    """The output is then not shared."""
    with pytest.raises(RequestError, match=r"epoch-0003\.pt is not seen by this machine; use a folder that all"):
        run.load(3)


def test_weights_make_a_training_complete(run: TrainingRun) -> None:
    """The curve is there before them, and is read again as it was."""
    assert not run.is_complete()
    run.finish({"weight": torch.arange(3)}, CURVE)
    assert run.is_complete()
    assert run.curve() == CURVE
    assert names_in(run) == {"curve.jsonl", "weights.safetensors"}
    assert safetensors.torch.load_file(run.weights_url)["weight"].tolist() == [0, 1, 2]
