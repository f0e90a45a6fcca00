"""A checkpoint of transformers gives the logits of transformers' own forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from smoothcert.manifests.job import Job
from smoothcert.workers.ablations.shown import Masks
from smoothcert.workers.networks.classifiers import load_classifier
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.tars.images import decode
from smoothcert.workers.votes.voters import load_voter
from tests.helpers.tars import png
from tests.helpers.transformers_folders import NETWORKS, processor_of, save, write_short_job

_TOLERANCE = 1e-5


def _saved(folder: Path, name: str) -> tuple[nn.Module, Job]:
    network = save(folder / "network", name)
    return network, load_job(write_short_job(folder, "network"))


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Whole images, in float32."""
    theirs, job = _saved(tmp_path, name)
    ours = load_classifier(job.model, job.preprocess, Path(job.model.checkpoint), None)
    images = torch.randn(4, 3, 16, 16)
    expected = theirs(images).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(images), expected, atol=_TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["vit", "deit", "deit with teacher", "dinov2", "registers of larger images"])
def test_the_engine_sees_the_pixels_of_transformers(name: str, tmp_path: Path) -> None:
    """From the bytes of an image that is no square to its logits, with transformers' own image processor."""
    theirs, job = _saved(tmp_path, name)
    data = png(44, 31, seed=3)
    (tmp_path / "image.png").write_bytes(data)
    with Image.open(tmp_path / "image.png") as image:
        expected = theirs(processor_of(name)(image, return_tensors="pt").pixel_values).logits[0]
    pixels = decode(data, job.preprocess).pixels
    assert pixels is not None
    voter = load_voter(job, Path(job.model.checkpoint), None, torch.device("cpu"))
    found = voter.one_logits(torch.from_numpy(pixels.copy()), Masks.whole(16, 16), keep_hidden=True)
    torch.testing.assert_close(found, expected, atol=_TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["dinov2", "registers"])
def test_the_mean_is_over_the_tokens_that_are_shown(name: str, tmp_path: Path) -> None:
    """
    A network of transformers that gets only the shown tokens votes as the engine does with hidden tokens left out.
    Oracle: transformers' own blocks and head, with the hidden tokens taken out after the embedding.
    """
    theirs, job = _saved(tmp_path, name)
    mask = np.zeros((1, 16, 16), bool)
    mask[:, :, 4:8] = True
    pixels = torch.arange(16 * 16 * 3).remainder(251).to(torch.uint8).reshape(16, 16, 3)
    voter = load_voter(job, Path(job.model.checkpoint), None, torch.device("cpu"))
    found = voter.one_logits(pixels, Masks(mask), keep_hidden=False)

    mean, std = torch.tensor(job.preprocess.mean), torch.tensor(job.preprocess.std)
    normal = ((pixels * torch.from_numpy(mask[0])[:, :, None] / 255 - mean) / std).permute(2, 0, 1)[None]
    prefix = 5 if name == "registers" else 1
    shown = [*range(prefix), *(prefix + row * 4 + 1 for row in range(4))]
    embeddings = next(module for module in theirs.modules() if type(module).__name__.endswith("Embeddings"))
    embeddings.register_forward_hook(lambda _module, _inputs, output: output[:, shown])
    torch.testing.assert_close(found, theirs(normal).logits[0], atol=_TOLERANCE, rtol=0)
