"""A small job that runs in a second: a one-block ViT on 16 x 16 pixels, its tars and its weights."""

import warnings
from pathlib import Path

import timm
import torch
import yaml

from tests.helpers.tars import png, tar_of, write_tar

CROP, CLASSES = 16, 3
OPTIONS = {"patch_size": 4, "depth": 1, "embed_dim": 32, "num_heads": 2}


def samples(start: int, count: int) -> list[tuple[str, bytes]]:
    """Members of `count` labelled samples."""
    members = []
    for number in range(start, start + count):
        members += [
            (f"{number:04d}.png", png(CROP, CROP, seed=number)),
            (f"{number:04d}.cls", str(number % CLASSES).encode()),
        ]
    return members


def write_weights(path: Path, *, classes: int = CLASSES, fill: float | None = None) -> Path:
    """Seeded random weights of the small network, or one value everywhere."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = timm.create_model("vit_tiny_patch16_224", img_size=CROP, num_classes=classes, **OPTIONS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 if fill is None else torch.full_like(parameter, fill))
    torch.save(network.state_dict(), path)
    return path


def write_job(folder: Path, **changes: object) -> Path:
    """A job file in `folder` over folder/tars; `changes` replace top-level keys."""
    if not (folder / "weights.pt").exists():
        write_weights(folder / "weights.pt")
    job = {
        "name": "small",
        "images": {"shards": "tars"},
        "model": {
            "architecture": "vit_tiny_patch16_224",
            "options": OPTIONS,
            "checkpoint": "weights.pt",
            "classes": CLASSES,
        },
        "preprocess": {"resize": None, "crop": CROP},
        "ablation": {"kind": "column", "size": 4},
        "patches": [1, 2],
        "output": "runs",
        "max_error_share": 1.0,
        "execution": {"cpus_per_actor": 1, "actors": 1},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job | changes))
    return path


def write_shards(folder: Path, shards: int = 3, images: int = 5) -> None:
    """folder/tars/00.tar and so on."""
    (folder / "tars").mkdir(exist_ok=True)
    for shard in range(shards):
        write_tar(folder / "tars", tar_of(samples(shard * images, images)), f"{shard:02d}.tar")
