"""What a machine says of itself: its versions and device, and how many images it votes on together."""

import platform
from types import SimpleNamespace

import PIL
import pyarrow as pa
import pytest
import timm
import torch
import torchvision

import smoothcert
from smoothcert.workers.runs.environment import ENVIRONMENT
from smoothcert.workers.votes.machine import auto_images_per_batch, device_here, environment_here


def test_the_environment_has_the_keys_that_are_compared():
    """Versions are those of the libraries that run."""
    environment = environment_here(torch.device("cpu"))
    assert tuple(environment) == ENVIRONMENT
    assert environment["versions"] == {
        "smoothcert": smoothcert.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "pyarrow": pa.__version__,
        "pillow": PIL.__version__,
    }
    assert environment["device"] == f"cpu {platform.machine()}"


@pytest.mark.parametrize(("gib", "images"), [(0.25, 1), (15.7, 31), (80.0, 160)])
def test_images_per_batch_follow_from_the_kind_of_device(monkeypatch, gib, images):
    """Total memory counts, never what is free: the same device always votes in the same company."""
    properties = SimpleNamespace(total_memory=int(gib * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    assert auto_images_per_batch(torch.device("cuda")) == images
    assert auto_images_per_batch(torch.device("cpu")) == 16


@pytest.mark.parametrize(("there", "kind"), [(False, "cpu"), (True, "cuda")])
def test_a_gpu_is_used_where_there_is_one(monkeypatch, there, kind):
    """Ray hides GPUs from actors that ask for none; then there is none here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_here().type == kind
