"""A job's rules answer as the functions that they stand for."""

import numpy as np
import pyarrow as pa

from smoothcert.manifests.job import load_job
from smoothcert.manifests.rules import Claim, RuleName
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import Ballots, exact_rule, margin_rule
from smoothcert.workers.runs.job_rules import JobRules
from tests.helpers import jobs


def _rows(votes: np.ndarray, margins: np.ndarray) -> pa.Table:
    """A table of votes and margins alone."""
    length = votes.shape[1]
    return pa.table(
        {
            "votes": pa.array(list(votes.astype(np.uint16)), pa.list_(pa.uint16(), length)),
            "margins": pa.array(list(margins.astype(np.float32)), pa.list_(pa.float32(), length)),
        }
    )


def test_they_count_and_decide_as_the_rules_do(tmp_path) -> None:
    job = load_job(jobs.write_job(tmp_path))
    rules = JobRules(job)
    crop, random = job.preprocess.crop, np.random.default_rng(0)
    ablations = ablations_of(job.ablation, crop, crop)
    votes = np.where(random.random((20, ablations.num_ablations)) < 0.9, 1, 0)
    margins = random.random(votes.shape)
    rows, threat = _rows(votes, margins), Threat(2, 2)
    plain = Ballots.of(votes, classes=job.model.classes)
    fragile = Ballots.of(votes, classes=job.model.classes, fragile=margins.astype(np.float32) < 0.1)
    for counted, expected in ((rules.count(rows), plain), (rules.count(rows, tolerance=0.1), fragile)):
        assert (rules.answer(counted, threat).slack == exact_rule(expected, ablations, threat).slack).all()
        by_margin = rules.answer(counted, threat, Claim(rule=RuleName.margin))
        assert (by_margin.slack == margin_rule(expected, ablations, threat).slack).all()
