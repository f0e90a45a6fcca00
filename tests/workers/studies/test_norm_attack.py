"""Attacks on whole images: the flags are those of the library, called directly."""

import pytest
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.studies import NormAttack
from smoothcert.workers.attacks.whole_image import WholeImages
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.studies.measures import Loader
from smoothcert.workers.studies.norm_attack import KIND, NormAttackMeasures
from tests.helpers import jobs
from tests.helpers.studied import CPU, images

autopgd = pytest.importorskip("pyautoattack.autopgd_base")
EPS = 0.05


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "tars").mkdir()
    return Loader(load_job(jobs.write_job(folder)), folder / "weights.pt", None, CPU)


@pytest.fixture(scope="module")
def classifier(loader):
    return WholeImages(loader.network(), loader.job.preprocess, CPU)


@pytest.fixture(scope="module")
def studied(classifier):
    """Images, most of them labelled as they are classified."""
    some = images(12)
    with torch.inference_mode():
        labels = classifier(pixels_of(some)).argmax(dim=1).tolist()
    return some._replace(labels=[(labels[0] + 1) % jobs.CLASSES, None, *labels[2:]])


def pixels_of(studied):
    return studied.pixels.permute(0, 3, 1, 2).contiguous().float() / 255


def rows_of(loader, studied, **settings):
    return NormAttackMeasures(NormAttack(eps=EPS, **settings), loader).measure(studied)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_flags_of_apgd_are_those_of_the_library(norm, loader, studied, classifier):
    eps = EPS if norm == "linf" else 10 * EPS
    rows = NormAttackMeasures(NormAttack(eps=eps, norm=norm, attack="apgd", steps=10), loader).measure(studied)
    right = [number for number, row in enumerate(rows) if row["clean_right"]]
    assert right == list(range(2, 12))  # a wrong label, and none
    pixels, labels = pixels_of(studied)[right], torch.tensor([studied.labels[number] for number in right])
    name = {"linf": "Linf", "l2": "L2"}[norm]
    attack = autopgd.APGDAttack(classifier, n_iter=10, norm=name, eps=eps, seed=studied.seeds[2], loss="ce")
    changed = attack.perturb(pixels, labels)
    with torch.inference_mode():
        stands = classifier(changed).argmax(dim=1) == labels
    assert [row["robust"] for row in rows][2:] == stands.tolist()
    assert set(stands.tolist()) == {True, False}


def test_stronger_attacks_leave_no_more(loader, studied):
    robust = {
        attack: [row["robust"] for row in rows_of(loader, studied, attack=attack, steps=5, queries=20)]
        for attack in ("apgd", "standard")
    }
    assert all(weak or not strong for weak, strong in zip(robust["apgd"], robust["standard"], strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_cheap_attacks_say_their_name(attack, loader, studied):
    rows = rows_of(loader, studied, attack=attack, steps=5)
    assert {row["attack"] for row in rows if "attack" in row} == {attack}
    assert all(row["size"] <= EPS * 1.0001 for row in rows if "size" in row)


def test_what_is_wrong_before_is_not_robust(loader, studied):
    for row in rows_of(loader, studied, attack="apgd", steps=1)[:2]:
        assert not row["clean_right"]
        assert not row["robust"]
        assert "attack" not in row


def test_a_change_beyond_the_ball_does_not_count(loader, studied, monkeypatch):
    """Whatever a library returns."""
    measures = NormAttackMeasures(NormAttack(eps=EPS, attack="apgd"), loader)
    for broken in (lambda inputs: 1 - inputs, lambda inputs: inputs * float("nan"), lambda inputs: inputs - 2 * EPS):
        monkeypatch.setattr(
            type(measures._attacked), "apgd", lambda _, inputs, *__, broken=broken, **___: broken(inputs)
        )
        assert all(row["robust"] for row in measures.measure(studied)[2:])


def test_the_same_images_give_the_same_rows(loader, studied):
    assert rows_of(loader, studied, steps=3, queries=9) == rows_of(loader, studied, steps=3, queries=9)


def test_every_value_has_its_column(loader, studied):
    names = {name for row in rows_of(loader, studied, steps=3, queries=3) for name in row}
    assert names <= set(KIND.columns.names)


def test_a_job_without_labels_is_refused(loader):
    unlabelled = loader.job.model_copy(update={"images": loader.job.images.model_copy(update={"label": None})})
    with pytest.raises(RequestError, match=r"images\.label: null, but robust accuracy needs labels"):
        NormAttackMeasures(NormAttack(eps=EPS), Loader(unlabelled, loader.checkpoint, None, CPU))
