"""Photographs of CIFAR-10, and small models of them that are worth comparing."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from smoothcert.manifests.ablation import Ablation, WindowAblation
from smoothcert.workers.ablations.kinds import ablations_of
from tests.helpers.house import SHARED
from tests.helpers.tars import tar_of, write_tar

SIDE, CLASSES = 32, 10
ABLATION = WindowAblation(kind="column", size=8, stride=4)
OPTIONS = {"patch_size": 4, "depth": 1, "embed_dim": 96, "num_heads": 3}
MEAN = STD = (0.5, 0.5, 0.5)


class Photos(NamedTuple):
    """Keys, JPEG files and labels."""

    keys: list[str]
    files: list[bytes]
    labels: NDArray[np.int64]


def photos(split: str, count: int, start: int = 0) -> Photos:
    """Photographs of `train` or `test`; the test is skipped where there are none."""
    path = SHARED / "data" / "cifar10" / f"{split}.parquet"
    if not path.exists():
        pytest.skip(f"{path} is missing: CIFAR-10 is not in the repository")
    table = pq.read_table(path)
    rows = table.take(np.random.default_rng(0).permutation(len(table))[start : start + count])  # they lie by class
    return Photos(rows["key"].to_pylist(), rows["jpg"].to_pylist(), rows["label"].to_numpy())


def write_photos(folder: Path, taken: Photos, name: str) -> Path:
    """A tar of the photographs."""
    members = []
    for key, file, label in zip(*taken, strict=True):
        members += [(f"{key}.jpg", file), (f"{key}.cls", str(label).encode())]
    return write_tar(folder, tar_of(members), name)


def write_model(
    path: Path, images: int, *, bias: Sequence[float] = (0.0,) * CLASSES, ablation: Ablation = ABLATION
) -> Path:
    """A ViT of one block with random weights, whose head is fitted to ablations of so many photographs.

    Args:
        path: file to write.
        images: of the training set; more of them make a better model.
        bias: added to the logit of each class.
        ablation: whose size and stride are multiples of the tokens' side.
    """
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=SIDE, num_classes=CLASSES, **OPTIONS).eval()
    taken = photos("train", images)
    features = _features(network, taken.files, ablation)
    wanted = np.eye(CLASSES)[np.repeat(taken.labels, len(features) // images)] - 1 / CLASSES
    centre = features.mean(0)
    centred = features - centre
    head = np.linalg.solve(centred.T @ centred + 10.0 * np.eye(features.shape[1]), centred.T @ wanted)
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(head.T))
        network.head.bias.copy_(torch.from_numpy(np.asarray(bias) - centre @ head))
    torch.save(network.state_dict(), path)
    return path


def _features(network: nn.Module, files: Sequence[bytes], ablation: Ablation) -> NDArray[np.float64]:
    """[images x ablations, embed_dim]: what the head sees of each ablation, its tokens alone."""
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    shown = ablations_of(ablation, SIDE, SIDE).visible_tokens(OPTIONS["patch_size"])
    with torch.inference_mode():
        embedded = network.pos_embed[:, 1:] + network.patch_embed(batch)
        prefix = (network.cls_token + network.pos_embed[:, :1]).expand(len(files), -1, -1)
        seen = [network.norm(network.blocks(torch.cat([prefix, embedded[:, there]], 1)))[:, 0] for there in shown]
    return torch.stack(seen, 1).flatten(0, 1).double().numpy()
