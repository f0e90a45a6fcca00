"""This machine as it votes: its device, how many images it votes on together, and its versions.

Not covered: comparing the machines of a run (pipeline/certify/alike.py).
"""

import os
import platform
from typing import Any

import PIL
import pyarrow as pa
import timm
import torch
import torchvision

from smoothcert.manifests.version import __version__
from smoothcert.workers.tars.images import decoder_version

_CPU_IMAGES_PER_BATCH = 16
_CUDA_IMAGES_PER_GIB = 2


def device_here() -> torch.device:
    """The first GPU that this process sees, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def auto_images_per_batch(device: torch.device) -> int:
    """Images to vote on together. Depends on the kind of device and its total memory, never on what is free now."""
    if device.type == "cpu":
        return _CPU_IMAGES_PER_BATCH
    return max(1, int(memory_bytes(device) / 2**30 * _CUDA_IMAGES_PER_GIB))


def memory_bytes(device: torch.device) -> int:
    """The total memory of a GPU, or of this machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def environment_here(device: torch.device) -> dict[str, Any]:
    """Versions, decoder and device, as every file of votes records them."""
    return {
        "versions": {
            "smoothcert": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
            "pyarrow": pa.__version__,
            "pillow": PIL.__version__,
        },
        "decoder": decoder_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}",
    }
