"""A network in memory votes as in a run, and stays as it is."""

import copy
import importlib.util
import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess, load_job
from smoothcert.workers.networks.classifiers import load_classifier
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.votes.in_memory import vote
from tests.helpers import jobs
from tests.helpers.faults import undisturbed_rows
from tests.helpers.finished_runs import RUNS, finish
from tests.helpers.house import SHARED
from tests.helpers.tars import png

GOLDEN = SHARED / "golden"
COLUMNS = {"kind": "column", "size": 4, "stride": 4}
NORM: dict[str, Any] = {"mean": Preprocess().mean, "std": Preprocess().std}
IMAGES = np.random.default_rng(0).integers(0, 256, (2, jobs.CROP, jobs.CROP, 3), dtype=np.uint8)


def photos(count: int) -> NDArray[np.uint8]:
    """The pixels of the first samples of tests.helpers.jobs."""
    return np.stack([np.array(Image.open(BytesIO(png(jobs.CROP, jobs.CROP, seed=seed)))) for seed in range(count)])


def linear(classes: int = 3, channels: int = 3) -> nn.Module:
    """The smallest network that is no transformer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * jobs.CROP**2, classes))


@pytest.mark.parametrize("kind", ["column", "row", "block"])
def test_votes_are_those_of_a_run(kind: str, tmp_path: Path) -> None:
    """Of the same pixels and network: ten images of two tars that hold broken ones, too."""
    run = open_run(finish(tmp_path, **RUNS[kind]))
    job, recorded, rows = run.job, run.votes(), run.images(["key", "margins"]).to_pylist()
    own = [place for place, row in enumerate(rows) if row["key"].isdigit()]
    assert len(own) == 10
    network = load_classifier(job.model, job.preprocess, Path(job.model.checkpoint), None)
    found = vote(network, photos(10), job.ablation, **NORM)
    assert found.classes.dtype == recorded.dtype
    assert (found.classes == recorded[own]).all()
    np.testing.assert_allclose(found.margins, [rows[place]["margins"] for place in own], atol=1e-4)


def test_votes_of_a_dense_network_are_those_of_a_run(tmp_path: Path) -> None:
    """Upsampled, in bfloat16: every setting of the job has its argument."""
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=jobs.CLASSES, **options)
    torch.save(network.state_dict(), tmp_path / "resnet.pt")
    jobs.write_shards(tmp_path, shards=1, images=5)
    model = {"architecture": "resnet18", "options": options, "checkpoint": "resnet.pt", "classes": jobs.CLASSES}
    job = jobs.write_job(
        tmp_path,
        model=model | {"masked_tokens": "keep", "dtype": "bfloat16"},
        preprocess={"resize": None, "crop": jobs.CROP, "upsample": 2},
        ablation=COLUMNS,
    )
    rows = undisturbed_rows(job, tmp_path / "runs")
    found = vote(network.train(), photos(5), COLUMNS, **NORM, upsample=2, masked_tokens="keep", dtype="bfloat16")
    assert found.classes.tolist() == [row["votes"] for row in rows]
    np.testing.assert_allclose(found.margins, [row["margins"] for row in rows], atol=1e-3)
    assert load_job(job).ablation.stride == 4


@pytest.mark.skipif(not (GOLDEN / "golden.npz").exists(), reason="golden votes lie beside the repository: absent here")
def test_votes_are_the_golden_votes() -> None:
    """Two images; all votes whose margin is no rounding."""
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weights.py")
    assert spec is not None and spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    golden = np.load(GOLDEN / "golden.npz")
    network = weights.fill(timm.create_model("vit_tiny_patch16_224", num_classes=10))
    found = vote(network, golden["images"][:2], {"kind": "block", "size": 75, "stride": 16}, **NORM)
    clear = golden["block_margins"][:2] > 1e-4
    assert (found.classes == golden["block_votes"][:2])[clear].all()
    assert clear.mean() > 0.99


def test_any_module_that_gives_logits_votes() -> None:
    """By hand: hidden pixels are black, then all are normalised."""
    network = linear()
    found = vote(network, IMAGES, COLUMNS, **NORM, masked_tokens="keep")
    mean, std = (torch.tensor(NORM[name])[:, None, None] for name in ("mean", "std"))
    for offset in range(4):
        shown = np.zeros_like(IMAGES)
        shown[:, :, 4 * offset : 4 * offset + 4] = IMAGES[:, :, 4 * offset : 4 * offset + 4]
        logits = network((torch.from_numpy(shown).permute(0, 3, 1, 2) / 255 - mean) / std)
        top = logits.topk(2).values
        assert found.classes[:, offset].tolist() == logits.argmax(1).tolist()
        np.testing.assert_allclose(found.margins[:, offset], (top[:, 0] - top[:, 1]).detach(), atol=1e-4)


def test_network_and_torch_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, mode, gradients and modules of the network; TF32 of the process."""
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=jobs.CROP, num_classes=3, init_values=0.1, **jobs.OPTIONS
    )
    before, modules = copy.deepcopy(network.state_dict()), [type(module) for module in network.modules()]
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        vote(network, IMAGES, COLUMNS, **NORM, dtype="bfloat16")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.backends.cudnn.allow_tf32
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert [type(module) for module in network.modules()] == modules
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].dtype == after[name].dtype and (before[name] == after[name]).all() for name in before)


def test_images_may_be_arrays_or_tensors_of_any_layout() -> None:
    """Frozen and reversed ones, too; many images are as one."""
    network, expected = linear(), vote(linear(), IMAGES, COLUMNS, **NORM, masked_tokens="keep")
    frozen, turned = IMAGES.copy(), IMAGES[:, ::-1].copy()[:, ::-1]
    frozen.flags.writeable = False
    many = np.concatenate([IMAGES] * 20)  # more than a batch
    for images in (torch.from_numpy(IMAGES), frozen, turned, many):
        found = vote(network, images, COLUMNS, **NORM, masked_tokens="keep")
        assert (found.classes == np.concatenate([expected.classes] * (len(images) // 2))).all()


def test_an_image_with_a_logit_that_is_not_finite_has_no_votes() -> None:
    """-1 everywhere, as in a run; the others keep theirs."""

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.linear(pixels)
            return logits.masked_fill((pixels > 2.6).any(dim=(1, 2, 3))[:, None], float("nan"))

    images = IMAGES // 2
    images[1, 3, 5] = 255
    found = vote(Broken(), images, COLUMNS, **NORM, masked_tokens="keep")
    assert (found.classes[0] >= 0).all()
    assert (found.classes[1] == -1).all()
    assert np.isnan(found.margins[1]).tolist() == [False, True, False, False]


class _NoTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": pixels}


def _with_kept_activation() -> nn.Module:
    network = linear()
    network.kept = network(torch.zeros(1, 3, jobs.CROP, jobs.CROP))
    return network


def _with_old_weight_norm() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return torch.nn.utils.weight_norm(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"images": IMAGES / 255},
            "images: float64, but must be an array or tensor of uint8, pixels from 0 to 255 that are not normalised",
        ),
        ({"images": torch.zeros(1, 16, 16, 3)}, "images: torch.float32, but must be an array or tensor of uint8"),
        ({"images": "cat.png"}, "images: str, but must be an array or tensor of uint8"),
        ({"images": IMAGES[0]}, "images: shape [16, 16, 3] is not [images, side, side, channels] with 3 channels or 1"),
        (
            {"images": IMAGES.transpose(0, 3, 1, 2)},
            "images: shape [2, 3, 16, 16] is not [images, side, side, channels] with 3 channels or 1; put the channels "
            "last, such as by images.permute(0, 2, 3, 1)",
        ),
        ({"images": IMAGES[:, :8]}, "images: shape [2, 8, 16, 3] is not [images, side, side, channels]"),
        ({"images": IMAGES[:0]}, "images: shape [0, 16, 16, 3] is not [images, side, side, channels]"),
        ({"images": IMAGES[..., :1]}, "mean: [0.485, 0.456, 0.406] is not one number for each of 1 channels"),
        ({"std": [0.5]}, "std: [0.5] is not one number for each of 3 channels"),
        ({"std": [0.5, 0.5, 0]}, "vote: std: [0.5, 0.5, 0] must be above 0 in each channel"),
        ({"upsample": 0}, "vote: upsample: 0 should be greater than or equal to 1"),
        ({"dtype": "int4"}, "network: dtype: 'int4' should be 'float32', 'bfloat16', 'float16' or 'int8'"),
        ({"ablation": {"kind": "column", "size": 17}}, "ablation.size: 17 is larger than the image's 16 pixels"),
        (
            {"ablation": {"kind": "cross", "size": 3}},
            "ablation.kind: 'cross' should be 'column', 'row', 'block' or 'mask'",
        ),
        ({"network": linear}, "network: a function is no torch module"),
        ({"network": nn.Flatten()}, "network: it has no parameters, so it is no classifier"),
        ({"network": linear().to("meta")}, "network: it is on meta, where no engine computes; move it to cpu or cuda"),
        ({"network": _NoTensor()}, "network: _NoTensor gives a dict for an image, not logits [1, classes]"),
        ({"network": nn.Conv2d(3, 3, 3)}, "network: Conv2d gives shape [1, 3, 14, 14] for an image, not logits"),
        ({"network": linear(channels=1)}, "model: Sequential cannot classify an image of 16 x 16 pixels in float32: "),
        ({"network": _with_kept_activation()}, "network: Sequential cannot be copied (Only Tensors created explicitly"),
        ({"network": _with_old_weight_norm()}, "network: Linear cannot be copied (Only Tensors created explicitly"),
        (
            {"network": nn.Sequential(nn.Flatten(), nn.LazyLinear(3))},
            "network: Sequential cannot be copied (Attempted to use an uninitialized parameter",
        ),
        ({"network": linear(classes=1)}, "network: classes: 1 should be greater than or equal to 2"),
        (
            {"masked_tokens": "drop"},
            "model.masked_tokens: Sequential is no plain VisionTransformer and has no tokens to drop; set "
            "model.masked_tokens: keep",
        ),
    ],
)
def test_what_cannot_vote_is_refused(changes: dict[str, Any], says: str) -> None:
    """In one line."""
    arguments: dict[str, Any] = {"network": linear(), "images": IMAGES, "ablation": COLUMNS, "masked_tokens": "keep"}
    with pytest.raises(RequestError, match=f"^{re.escape(says)}[^\n]*$"):
        vote(**arguments | NORM | changes)


def test_a_network_that_mixes_images_is_refused() -> None:
    """One patch could change every vote."""

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.linear(pixels - pixels.mean(dim=0))
            return logits

    with pytest.raises(RequestError, match="gives an image other logits if other images are beside it"):
        vote(Mixing(), IMAGES, COLUMNS, **NORM, masked_tokens="keep")
