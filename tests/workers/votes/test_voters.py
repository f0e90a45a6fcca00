"""A job's network, from its checkpoint to votes: the engine that fits it, and rows of networks of other kinds."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess, load_job
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.networks.classifiers import load_classifier
from smoothcert.workers.votes import voters
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed_dense import SmoothedDense
from smoothcert.workers.votes.smoothed_vit import SmoothedViT
from smoothcert.workers.votes.voters import load_voter, smooth
from tests.helpers import jobs
from tests.helpers.faults import undisturbed_rows
from tests.helpers.tars import png, tar_of, write_tar

_OPTIONS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


def test_rows_of_a_network_without_tokens(tmp_path: Path) -> None:
    """Each row has the votes that timm's network gives by hand, on images that are ablated and then upsampled."""
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=jobs.CLASSES, **_OPTIONS).eval().requires_grad_(False)
    torch.save(network.state_dict(), tmp_path / "resnet.pt")
    jobs.write_shards(tmp_path, shards=2, images=3)
    model = {"architecture": "resnet18", "options": _OPTIONS, "checkpoint": "resnet.pt", "classes": jobs.CLASSES}
    job = jobs.write_job(
        tmp_path,
        model=model | {"masked_tokens": "keep"},
        preprocess={"resize": None, "crop": jobs.CROP, "upsample": 2},
        ablation={"kind": "column", "size": 4, "stride": 8},
    )
    rows = undisturbed_rows(job, tmp_path / "runs")
    assert [row["key"] for row in rows] == [f"{number:04d}" for number in range(6)]
    mean, std = (torch.tensor(values)[:, None, None] for values in (Preprocess().mean, Preprocess().std))
    for number, row in enumerate(rows):
        image = np.array(Image.open(BytesIO(png(jobs.CROP, jobs.CROP, seed=number))))
        visible = np.zeros((3, jobs.CROP, 1), bool)
        visible[0], visible[1, :4], visible[2, 8:12] = True, True, True  # the whole, and two columns
        large = (image * visible[:, None]).repeat(2, axis=1).repeat(2, axis=2)
        top = network((torch.from_numpy(large).permute(0, 3, 1, 2) / 255 - mean) / std).topk(2)
        assert [row["clean_prediction"], *row["votes"]] == top.indices[:, 0].tolist()
        margins = top.values[:, 0] - top.values[:, 1]
        np.testing.assert_allclose([row["clean_margin"], *row["margins"]], margins, atol=1e-4)


@pytest.mark.parametrize("masked_tokens", ["keep", "drop"])
def test_rows_of_a_gray_network(tmp_path: Path, masked_tokens: str) -> None:
    """One channel, one mean: rows have the votes that timm's network gives by hand on gray pixels."""
    torch.manual_seed(0)
    options = jobs.OPTIONS | {"in_chans": 1}
    network = timm.create_model("vit_tiny_patch16_224", img_size=jobs.CROP, num_classes=jobs.CLASSES, **options)
    torch.save(network.eval().requires_grad_(False).state_dict(), tmp_path / "gray.pt")
    images = [Image.open(BytesIO(png(jobs.CROP, jobs.CROP, seed=seed))).convert("L") for seed in range(4)]
    (tmp_path / "tars").mkdir()
    members = []
    for number, image in enumerate(images):
        image.save(file := BytesIO(), "PNG")
        members += [(f"{number:04d}.png", file.getvalue()), (f"{number:04d}.cls", b"1")]
    write_tar(tmp_path / "tars", tar_of(members))
    model = {"architecture": "vit_tiny_patch16_224", "options": options, "checkpoint": "gray.pt"}
    job = jobs.write_job(
        tmp_path,
        model=model | {"classes": jobs.CLASSES, "masked_tokens": masked_tokens},
        preprocess={"resize": None, "crop": jobs.CROP, "mean": 0.5, "std": [0.5]},
        ablation={"kind": "column", "size": 4, "stride": 8},
    )
    for row, image in zip(undisturbed_rows(job, tmp_path / "runs"), images, strict=True):
        visible = np.zeros((3, jobs.CROP), bool)
        visible[0], visible[1, :4], visible[2, 8:12] = True, True, True  # the whole, and two columns
        painted = torch.from_numpy(np.array(image) * visible[:, None]).float() / 255
        logits = network((painted[:, None] - 0.5) / 0.5)
        assert row["clean_prediction"] == logits[0].argmax()
        if masked_tokens == "keep":
            assert row["votes"] == logits[1:].argmax(1).tolist()


@pytest.mark.parametrize(
    ("options", "mean", "says"),
    [
        (
            {"in_chans": 1},
            [0.5, 0.5, 0.5],
            "model.options: the network takes 1 channel(s) (in_chans), but preprocess.mean",
        ),
        ({}, [0.5], "model.options: the network takes 3 channel(s) (in_chans), but preprocess.mean has one number"),
        ({"in_chans": 4}, [0.5, 0.5, 0.5], "set in_chans to 3 for RGB images, or 1 for gray ones"),
        ({"in_chans": [1]}, [0.5], "model.options: in_chans is [1]; set it to 3 for RGB images, or 1 for gray ones"),
        ({"in_chans": True}, [0.5], "model.options: in_chans is True; set it to 3"),
        ({"in_chans": 2}, [0.5, 0.5], "must have three numbers for RGB images, or one for gray images"),
    ],
)
def test_channels_that_do_not_fit_are_one_line(
    tmp_path: Path, options: dict[str, int], mean: list[float], says: str
) -> None:
    """A network of other channels than the pixels have is refused when the job is read."""
    model = {"architecture": "vit_tiny_patch16_224", "options": options, "checkpoint": "none", "classes": 3}
    preprocess = {"resize": None, "crop": jobs.CROP, "mean": mean, "std": [0.5] * len(mean)}
    with pytest.raises(RequestError, match=re.escape(says)):
        load_job(jobs.write_job(tmp_path, model=model, preprocess=preprocess))


_NETWORKS = {
    "tokens": ("vit_tiny_patch16_224", jobs.OPTIONS, "drop", SmoothedViT),
    "no tokens": ("resnet18", _OPTIONS, "keep", SmoothedDense),
}


@pytest.mark.parametrize("name", _NETWORKS)
def test_a_network_gets_the_engine_that_fits_it_and_is_not_copied(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 the engine takes the network itself over; another number format needs one exact copy beside it."""
    architecture, options, masked_tokens, engine = _NETWORKS[name]
    sized = {"img_size": jobs.CROP} if name == "tokens" else {}
    network = timm.create_model(architecture, num_classes=jobs.CLASSES, **options, **sized).eval().requires_grad_(False)
    ablations = ablations_of(WindowAblation(kind="column", size=4), jobs.CROP, jobs.CROP)
    form = Format("a network", jobs.CLASSES, keep_hidden=masked_tokens == "keep")
    monkeypatch.setattr(voters.copy, "deepcopy", lambda _: pytest.fail("the network is copied"))
    preprocess = Preprocess(resize=None, crop=jobs.CROP)
    voter = smooth(network, ablations, preprocess=preprocess, format=form, device=torch.device("cpu"))
    assert isinstance(voter, engine)
    assert voter._network is network


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_voter_votes_as_the_network_of_its_checkpoint(tmp_path: Path, dtype: str) -> None:
    """Whole images have the class of timm's network with these weights, on the job's ablations and preprocessing."""
    job = load_job(jobs.write_job(tmp_path), [f"model.dtype={dtype}"])
    checkpoint = Path(job.model.checkpoint)
    network = load_classifier(job.model, job.preprocess, checkpoint, None)
    voter = load_voter(job, checkpoint, None, torch.device("cpu"))
    images = torch.randint(0, 256, (8, jobs.CROP, jobs.CROP, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (job.preprocess.mean, job.preprocess.std))
    expected = network((images.permute(0, 3, 1, 2) / 255 - mean) / std)
    tolerance = 1e-4 if dtype == "float32" else 0.05 * expected.abs().max().item()
    torch.testing.assert_close(voter.clean_logits(images)[:, 0], expected, rtol=0, atol=tolerance)
    assert voter.votes(images).classes.shape == (8, jobs.CROP)
