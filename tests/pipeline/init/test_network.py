"""What a network says of itself. Pixels are those of timm's own transform."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, Preprocess, Storage
from smoothcert.pipeline.init.network import Described, describe
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars.images import decode
from tests.helpers import jobs
from tests.helpers.checkpoints import network_of
from tests.helpers.photos import photo

STORE = AnyStore(Storage())
SETTINGS = {
    "input_size": [3, 32, 32],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
    "num_classes": 3,
}


def _describe(source: object, **written: Any) -> Described:
    return describe(str(source), written, STORE)


def _of_timm(folder: Path, *, old: bool = False, **changes: Any) -> Path:
    """A folder with weights and a config as timm writes it; in the old form all keys are beside each other."""
    network = network_of(Model(architecture="resnet10t", classes=3, checkpoint="", masked_tokens="keep"), 32)
    save_file(network.state_dict(), folder / "model.safetensors")
    settings = SETTINGS | changes
    config = settings if old else {"num_classes": settings["num_classes"], "pretrained_cfg": settings}
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet10t"} | config))
    return folder


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("share", [0.875, 0.9, 0.95, 1.0])
def test_pixels_are_those_of_timm(share: float, mode: str, interpolation: str, tmp_path: Path) -> None:
    """Of its transform for evaluation, made from the same settings."""
    changes = {"crop_pct": share, "crop_mode": mode, "interpolation": interpolation}
    found = _describe(_of_timm(tmp_path, **changes))
    image = Image.open(io.BytesIO(photo(1, "PNG", side=60))).resize((60, 45))
    file = io.BytesIO()
    image.save(file, "PNG")
    pixels = decode(file.getvalue(), Preprocess.model_validate(found.preprocess)).pixels
    assert pixels is not None
    expected = create_transform(**resolve_data_config(pretrained_cfg=SETTINGS | changes))(image)
    mean, std = (np.asarray(found.preprocess[key]) for key in ("mean", "std"))
    assert np.abs((pixels / 255 - mean) / std - expected.permute(1, 2, 0).numpy()).max() < 1e-5


@pytest.mark.parametrize("old", [False, True])
def test_both_forms_of_timms_config(old: bool, tmp_path: Path) -> None:
    """The file of weights is named; names of classes come along; a network without tokens keeps them."""
    found = _describe(_of_timm(tmp_path, old=old, label_names=["ant", "bee", "cat"]))
    assert found.model == {
        "checkpoint": str(tmp_path / "model.safetensors"),
        "architecture": "resnet10t",
        "classes": 3,
        "class_names": ["ant", "bee", "cat"],
        "masked_tokens": "keep",
    }
    assert found.class_names == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"crop_mode": "border"}, "its settings say crop_mode border, which a job cannot express"),
        ({"interpolation": "lanczos"}, "its settings say interpolation lanczos"),
        ({"num_classes": 0}, "resnet10t has no classes"),
    ],
)
def test_settings_that_no_job_can_express(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    """One line."""
    with pytest.raises(RequestError, match=says):
        _describe(_of_timm(tmp_path, **changes))


def test_weights_that_timm_knows() -> None:
    """By a name with or without a tag; nothing is downloaded."""
    found = _describe("vit_tiny_patch16_224")
    assert found.model == {
        "checkpoint": "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "architecture": "vit_tiny_patch16_224",
        "classes": 1000,
    }
    assert (found.preprocess["resize"], found.preprocess["crop"], found.side) == (248, 224, 224)
    assert _describe("vit_tiny_patch16_224.augreg_in21k").model["classes"] == 21843


def test_a_file_whose_tensors_show_no_network(tmp_path: Path) -> None:
    """The user names the architecture, and the head shows the classes."""
    (tmp_path / "of").mkdir()
    weights = (_of_timm(tmp_path / "of") / "model.safetensors").rename(tmp_path / "weights.safetensors")
    with pytest.raises(RequestError, match=r"do not show which network it is; add --set model\.architecture=NAME"):
        _describe(weights)
    found = _describe(weights, model={"architecture": "resnet10t"})
    assert (found.classes, found.model["masked_tokens"], found.side) == (3, "keep", 176)
    with pytest.raises(RequestError, match="timm knows no 'resnet10'"):
        _describe(weights, model={"architecture": "resnet10"})


def test_the_shapes_of_a_vit_show_it(tmp_path: Path) -> None:
    """Depth, tokens, classes and size; only mean and std remain a guess, and the comment says so."""
    found = _describe(jobs.write_weights(tmp_path / "weights.pt"))
    assert (found.classes, found.side) == (jobs.CLASSES, jobs.CROP)
    assert "correct it if the weights were trained otherwise" in found.comments["preprocess"]
