"""A job's model votes on images as its engine does, and its certificates are those of the rules."""

from pathlib import Path

import numpy as np
import pytest
import torch

from smoothcert.manifests.job import Job, load_job
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.majority import certify
from smoothcert.workers.votes.job_voter import JobVoter
from smoothcert.workers.votes.self_check import made_up_image
from smoothcert.workers.votes.voters import load_voter
from tests.helpers import jobs

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, jobs.CROP, jobs.CROP, 3), dtype=np.uint8))


def voter_of(folder: Path, **changes: object) -> JobVoter:
    """Of the small job."""
    job: Job = load_job(jobs.write_job(folder, **changes))
    model = load_voter(job, folder / "weights.pt", None, torch.device("cpu"))
    return JobVoter(job, model, ablations_of(job.ablation, jobs.CROP, jobs.CROP))


@pytest.mark.parametrize("clean", [False, True])
def test_votes_are_those_of_the_engine(tmp_path, clean):
    """In the types of the table; whole images only if the job asks for them."""
    voter = voter_of(tmp_path, clean=clean)
    votes, expected, whole = voter.vote(IMAGES), voter.model.votes(IMAGES), voter.model.clean_votes(IMAGES)
    assert votes.classes.dtype == np.uint16
    assert (votes.classes == expected.classes.numpy()).all()
    assert (votes.margins == expected.margins.numpy()).all()
    assert votes.finite.tolist() == [True] * 3
    if clean:
        assert votes.clean_classes.tolist() == whole.classes[:, 0].tolist()
        assert votes.clean_margins.tolist() == whole.margins[:, 0].tolist()
    else:
        assert (votes.clean_classes, votes.clean_margins) == (None, None)


@pytest.mark.parametrize("where", ["votes", "clean_votes"])
def test_an_image_with_a_logit_that_is_not_finite_is_marked(tmp_path, monkeypatch, where):
    """One ablation of many, or the whole image, is enough; other images of the batch are not marked."""
    voter = voter_of(tmp_path)
    plain = getattr(voter.model, where)

    def broken(images):
        votes = plain(images)
        votes.margins[1, -1] = float("nan")
        return votes

    monkeypatch.setattr(voter.model, where, broken)
    assert voter.vote(IMAGES).finite.tolist() == [True, False, True]


def test_certificates_and_predictions_are_those_of_the_rules(tmp_path):
    """For the job's ablations and number of classes."""
    voter = voter_of(tmp_path)
    votes = np.random.default_rng(1).integers(0, 2, (5, voter.ablations.num_ablations)).astype(np.uint16)
    expected = certify(votes, voter.ablations, classes=jobs.CLASSES)
    for name, values in vars(voter.certify(Cast(votes))).items():
        assert (values == getattr(expected, name)).all()
    assert (voter.predict(Cast(votes)) == expected.prediction).all()


def test_sample_logits_are_those_of_the_made_up_image(tmp_path):
    """All machines of a run compare them."""
    voter = voter_of(tmp_path)
    expected = voter.model.clean_logits(made_up_image(voter.job.preprocess)[None])
    assert voter.sample_logits().shape == (jobs.CLASSES,)
    assert (voter.sample_logits() == expected[0, 0].numpy()).all()
