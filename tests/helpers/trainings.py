"""A small training that runs in a second: a ViT of two blocks on 16 x 16 pixels, its tars and its file."""

from pathlib import Path

import yaml

from smoothcert.manifests.training import Training, load_training
from tests.helpers.jobs import CLASSES, CROP, OPTIONS, write_shards

SETTINGS = {
    "name": "small",
    "images": {"shards": "tars"},
    "model": {"architecture": "vit_tiny_patch16_224", "options": OPTIONS | {"depth": 2}, "classes": CLASSES},
    "preprocess": {"resize": None, "crop": CROP},
    "augmentation": {"flip": 0.0},
    "ablation": {"kind": "column", "size": 3},
    "optimizer": {"lr": 0.1},
    "batch_size": 4,
    "epochs": 2,
    "cache": True,
    "output": "trained",
}


def write_training(folder: Path, *, tars: tuple[int, int] = (3, 5), **changes: object) -> Path:
    """A training file over folder/tars, of so many tars of so many images; `changes` replace top-level keys."""
    write_shards(folder, *tars)
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | changes))
    return path


def small_training(folder: Path, *, tars: tuple[int, int] = (3, 5), **changes: object) -> Training:
    """The same, loaded."""
    return load_training(write_training(folder, tars=tars, **changes))
