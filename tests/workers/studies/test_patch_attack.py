"""Attacks with patches on a small network: what is found is what the engine votes, and nothing more is claimed."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.studies import PatchAttack
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.rules import Ballots, slack_everywhere
from smoothcert.workers.certificates.tally import count_votes
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.studies.measures import Loader
from smoothcert.workers.studies.patch_attack import KIND, PatchAttackMeasures
from tests.helpers import jobs
from tests.helpers.studied import CPU, images

pytest.importorskip("pyautoattack")
SETTINGS = PatchAttack(height=8, width=6, places=2, random_places=1, steps=4, queries=5)


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "tars").mkdir()
    job = load_job(jobs.write_job(folder))
    return Loader(job, folder / "weights.pt", None, CPU)


@pytest.fixture(scope="module")
def studied(loader):
    """Images with the votes of the network."""
    some = images(10)
    return some._replace(votes=loader.voter().votes(some.pixels).classes.numpy())


def rows_of(loader, studied, settings=SETTINGS):
    return PatchAttackMeasures(settings, loader).measure(studied)


def test_a_patch_that_is_stored_changes_the_votes(loader, studied):
    """Oracle: the engine, on the image with the stored PNG at the stored place."""
    rows = rows_of(loader, studied)
    fallen = [number for number, row in enumerate(rows) if row["fell"]]
    assert fallen
    for number in fallen:
        row, image = rows[number], studied.pixels[number].clone()
        patch = np.asarray(Image.open(io.BytesIO(row["patch"])))
        assert patch.shape == (8, 6, 3)
        image[row["top"] : row["top"] + 8, row["left"] : row["left"] + 6] = torch.from_numpy(patch.copy())
        voted = loader.voter().votes(image[None]).classes.numpy()
        now = int(count_votes(voted, classes=jobs.CLASSES).prediction[0])
        assert now == row["becomes"] != row["prediction"]
        assert row["attack"] in ("apgd-ce", "apgd-dlr", "square")


def test_weak_places_come_first(loader, studied):
    """The first place has the smallest slack of all; what falls there has needed one place."""
    reach = ablations_of(loader.job.ablation, jobs.CROP, jobs.CROP).everywhere(8, 6)
    slack = slack_everywhere(Ballots.of(studied.votes, classes=jobs.CLASSES), reach)
    rows = rows_of(loader, studied)
    assert [row["slack"] for row in rows] == slack.min(axis=1).tolist()
    for row, own in zip(rows, slack, strict=True):
        if row["fell"]:
            place = row["top"] * (jobs.CROP - 5) + row["left"]
            assert row["place_slack"] == own[place]
            if row["places"] <= SETTINGS.places:
                assert row["place_slack"] == np.sort(own)[row["places"] - 1]


def test_the_same_images_give_the_same_rows(loader, studied):
    assert rows_of(loader, studied) == rows_of(loader, studied)


def test_forward_passes_are_counted(loader, studied):
    """An image that stands has seen every run of every attack, at every place."""
    measures = PatchAttackMeasures(SETTINGS, loader)
    rows = measures.measure(studied)
    whole = 3 * (2 * (SETTINGS.steps + 1) + SETTINGS.queries + 1)
    assert all(row["forwards"] == whole for row in rows if not row["fell"])
    assert all(0 < row["forwards"] <= whole for row in rows)
    assert measures.forwards == sum(row["forwards"] for row in rows)


def test_with_two_classes_dlr_is_left_out(tmp_path):
    """It compares three logits."""
    (tmp_path / "tars").mkdir()
    jobs.write_weights(tmp_path / "weights.pt", classes=2)
    model = {"architecture": "vit_tiny_patch16_224", "options": jobs.OPTIONS, "checkpoint": "weights.pt", "classes": 2}
    two = Loader(load_job(jobs.write_job(tmp_path, model=model)), tmp_path / "weights.pt", None, CPU)
    some = images(3)
    some = some._replace(votes=two.voter().votes(some.pixels).classes.numpy())
    rows = rows_of(two, some, SETTINGS.model_copy(update={"queries": 0}))
    assert all(row["forwards"] <= 3 * (SETTINGS.steps + 1) for row in rows)
    with pytest.raises(RequestError, match="--loss dlr: needs 3 classes; use ce"):
        PatchAttackMeasures(SETTINGS.model_copy(update={"losses": ("dlr",)}), two)


def test_every_value_has_its_column(loader, studied):
    names = {name for row in rows_of(loader, studied) for name in row}
    assert names == set(KIND.columns.names)
