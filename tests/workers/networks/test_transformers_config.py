"""Configs of transformers mean what transformers takes them for, or are refused in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.networks.transformers_config import model_settings, pixel_settings
from smoothcert.workers.tars.images import decode
from tests.helpers.tars import png

_VIT = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
_DINOV2 = {"model_type": "dinov2", "architectures": ["Dinov2ForImageClassification"]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "has no model_type; smoothcert reads vit, deit, dinov2"),
        ({"model_type": "swin"}, "model_type 'swin' is not supported"),
        ({"model_type": ["vit"]}, "is not supported"),
        ({"architecture": "resnet50", "num_classes": 10}, "write model.architecture: resnet50 and model.classes: 10"),
        ({"model_type": "vit"}, "names no architecture"),
        (
            _VIT | {"architectures": ["ViTForMaskedImageModeling"]},
            "is of ViTForMaskedImageModeling, and smooth",
        ),
        (_VIT | {"architectures": "ViT"}, "is of ViT, and smoothcert"),
        (_VIT | {"hidden_size": "wide"}, "hidden_size: .*integer"),
        (_VIT | {"hidden_size": 100}, "hidden_size is not num_attention_heads times"),
        (_VIT | {"head_dim": 32}, "hidden_size is not num_attention_heads times"),
        (_VIT | {"hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
        (_VIT | {"image_size": [224, 192]}, "image_size: "),
        (_VIT | {"patch_size": [16, 8]}, "patch_size: "),
        (_VIT | {"problem_type": "regression"}, "problem_type regression is not supported"),
        (_VIT | {"quantization_config": {"bits": 4}}, "the weights are quantized"),
        (_VIT | {"id2label": {"1": "cat", "2": "dog"}}, "id2label must name the classes 0 to 1"),
        (_VIT | {"id2label": {"cat": "0"}}, "id2label"),
    ],
)
def test_other_networks_are_refused(content: dict[str, Any], says: str) -> None:
    """In one line that names the file."""
    with pytest.raises(RequestError, match=rf"^model\.checkpoint: FOLDER/config\.json:? .*{says}") as error:
        model_settings(content, "FOLDER/config.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [_VIT, _DINOV2], ids=["vit", "dinov2"])
def test_a_key_that_is_left_out_has_transformers_own_default(content: dict[str, Any]) -> None:
    """Old files on the hub leave keys out; null is a default, too."""
    config = transformers.AutoConfig.for_model(content["model_type"]).to_dict()
    full = {key: value for key, value in config.items() if key not in ("architectures", "model_type")} | content
    nulls = content | {"hidden_size": None, "layer_norm_eps": None}
    settings = model_settings(content, "config.json")
    assert settings == model_settings(full, "config.json") == model_settings(nulls, "config.json")
    assert settings["classes"] == 2
    assert settings["class_names"] == []


_OF_VIT, _OF_BIT = {"image_processor_type": "ViTImageProcessor"}, {"image_processor_type": "BitImageProcessor"}
_OF_DEIT = {"image_processor_type": "DeiTImageProcessor"}
_PROCESSORS = {
    "vit": _OF_VIT | {"size": {"height": 20, "width": 20}},
    "vit, a number, bicubic": _OF_VIT | {"size": 20, "resample": 3},
    "vit, defaults": _OF_VIT,
    "vit, other colours": _OF_VIT | {"size": 20, "image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 0.5, 0.25]},
    "vit, colours as they are": _OF_VIT | {"size": 20, "do_normalize": False},
    "deit, a number": _OF_DEIT | {"size": 24, "crop_size": 20},
    "deit, no crop": _OF_DEIT | {"size": 24, "do_center_crop": False},
    "deit, defaults": _OF_DEIT,
    "bit": _OF_BIT | {"size": {"shortest_edge": 24}, "crop_size": {"height": 20, "width": 20}},
    "bit, numbers, bilinear": _OF_BIT | {"size": 24, "crop_size": 20, "resample": 2},
    "bit, defaults": _OF_BIT,
}
_CLASSES = {
    "ViTImageProcessor": transformers.ViTImageProcessorPil,
    "DeiTImageProcessor": transformers.DeiTImageProcessorPil,
    "BitImageProcessor": transformers.BitImageProcessorPil,
}


@pytest.mark.parametrize("name", _PROCESSORS)
@pytest.mark.parametrize("shape", [(60, 45), (32, 70), (40, 40)])  # with an odd margin, crops differ by a pixel
def test_pixels_are_those_of_transformers_processor(name: str, shape: tuple[int, int], tmp_path: Path) -> None:
    """For images of any shape. Oracle: the processor of transformers that computes with Pillow."""
    content = _PROCESSORS[name]
    file = tmp_path / "image.png"
    file.write_bytes(png(*shape, seed=5))
    processor = _CLASSES[content["image_processor_type"]].from_dict(json.loads(json.dumps(content)))
    with Image.open(file) as image:
        expected = processor(image, return_tensors="np").pixel_values[0]
    settings, unclear = pixel_settings(content, "preprocessor_config.json", 3)
    assert not unclear
    preprocess = Preprocess(**settings)
    pixels = decode(file.read_bytes(), preprocess).pixels
    assert pixels is not None
    found = (pixels / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    torch.testing.assert_close(torch.from_numpy(found.transpose(2, 0, 1)).float(), torch.tensor(expected))


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"image_processor_type": "ConvNextImageProcessor"}, {"resize", "crop", "interpolation", "mean", "std"}),
        ({}, {"resize", "crop", "interpolation", "mean", "std"}),
        (_OF_VIT | {"resample": 0}, {"interpolation"}),
        (_OF_VIT | {"do_rescale": False}, {"mean", "std"}),
        (_OF_VIT | {"rescale_factor": 1 / 127.5}, {"mean", "std"}),
        (_OF_VIT | {"size": {"height": 20, "width": 30}}, {"resize", "crop"}),
        (_OF_BIT | {"size": {"longest_edge": 20}}, {"resize"}),
        (_OF_BIT | {"do_center_crop": False}, {"crop"}),
        (_OF_BIT | {"crop_size": {"height": 20, "width": 30}}, {"crop"}),
        (_OF_VIT | {"do_resize": False}, {"crop"}),
    ],
)
def test_what_a_job_cannot_say_is_left_to_the_user(content: dict[str, Any], keys: set[str]) -> None:
    """Each key of `preprocess` is given, or there is a reason why not."""
    settings, unclear = pixel_settings(content, "preprocessor_config.json", 3)
    assert unclear.keys() == keys
    assert settings.keys() | keys >= {"resize", "crop", "interpolation", "mean", "std"}
    assert not settings.keys() & keys


def test_a_processor_of_another_type_is_refused() -> None:
    """In one line that names key and file."""
    with pytest.raises(RequestError, match=r"^model\.checkpoint: p\.json: resample: .*; restore the file$"):
        pixel_settings(_OF_VIT | {"resample": "sharp"}, "p.json", 3)
