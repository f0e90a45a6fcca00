"""Figures of held-out images, against certificates of the weights that are published."""

from pathlib import Path

import pytest
import torch

from smoothcert.manifests.job import Model
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.majority import certify
from smoothcert.workers.networks.classifiers import load_classifier
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.curves import Figures
from smoothcert.workers.training.data import read_images
from smoothcert.workers.training.loop import train
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed_vit import SmoothedViT
from tests.helpers.jobs import CLASSES, CROP
from tests.helpers.trainings import SETTINGS, small_training

_GRAY = {
    "model": SETTINGS["model"] | {"options": SETTINGS["model"]["options"] | {"in_chans": 1}},
    "preprocess": {"resize": None, "crop": CROP, "mean": 0.5, "std": 0.5},
}


@pytest.mark.parametrize("changes", [{}, _GRAY], ids=["colour", "gray"])
def test_what_is_published_certifies_as_it_was_validated(tmp_path, changes):
    """The weights are a job's checkpoint; figures of the last epoch are those of the published file.
    Oracle: certify() as the pipeline calls it.
    """
    held_out = {"images": {"shards": "tars"}, "patches": [1, 3]}
    training = small_training(tmp_path, tars=(3, 20), ema=0.5, publish_as="float16", validation=held_out, **changes)
    *_, figures = (event for event in train(training) if isinstance(event, Figures))
    model = Model(**SETTINGS["model"] | changes.get("model", {}), checkpoint="weights.safetensors")
    network = load_classifier(model, training.preprocess, Path(training.url, "weights.safetensors"), None)
    geometry = ablations_of(training.validated_ablation, CROP, CROP)
    cpu, form = torch.device("cpu"), Format.of(model)
    engine = SmoothedViT(network, geometry, preprocess=training.preprocess, format=form, device=cpu)
    store = AnyStore(training.storage)
    data = read_images(find_shards(training.images, store), training.images, training.preprocess, CLASSES, store)
    votes = engine.votes(data.pixels).classes.numpy()
    certificates = certify(votes, geometry, classes=CLASSES)
    right = certificates.prediction == data.labels.numpy()
    assert figures.ablation_accuracy == pytest.approx((votes == data.labels.numpy()[:, None]).mean())
    assert figures.smoothed_accuracy == pytest.approx(right.mean())
    for side in (1, 3):
        held = right & (certificates.max_certified_patch >= side)
        assert figures.certified_accuracy[str(side)] == pytest.approx(held.mean())
