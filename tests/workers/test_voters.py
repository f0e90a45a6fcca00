"""A network without tokens goes the whole way, from a job file to rows."""

from io import BytesIO
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from manifests.job import Preprocess
from tests.helpers import jobs
from tests.helpers.faults import undisturbed_rows
from tests.helpers.tars import png

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
