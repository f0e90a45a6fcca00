"""A job's rules answer as the functions that they stand for, and know which patches they answer for."""

import numpy as np
import pyarrow as pa
import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job, load_job
from smoothcert.manifests.rules import Claim, RuleName
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import Ballots, exact_rule, margin_rule
from smoothcert.workers.runs.job_rules import JobRules, answered_by_all, own_patches
from tests.helpers import jobs
from tests.helpers.judged_runs import CROP, JOB
from tests.helpers.masked_runs import KINDS


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


def _of(kind: str) -> Job:
    return Job.model_validate(JOB | {"ablation": KINDS[kind]})


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_patch_is_the_last_that_is_not_refused(kind: str) -> None:
    rules = JobRules(_of(kind))
    for shape in (lambda side: Threat(side, side), lambda side: Threat(side, 1), lambda side: Threat(1, side)):
        most = rules.longest(shape)
        rules.refuse(shape(most))
        assert rules.answers(shape(most))
        with pytest.raises(RequestError, match=f"the largest square that this run answers is {rules.longest_square} x"):
            rules.refuse(shape(most + 1))
        assert not rules.answers(shape(most + 1))


def test_columns_answer_for_any_patch() -> None:
    job = Job.model_validate(JOB)
    assert JobRules(job).longest_square == CROP
    assert own_patches(job) == ((1, 1), (2, 2))


@pytest.mark.parametrize(
    ("kind", "patches"), [("square", (3, 3)), ("rectangle", (2, 5)), ("area", (2, 2)), ("two patches", (2, 2))]
)
def test_masks_are_about_what_they_were_made_for(kind: str, patches: tuple[int, int]) -> None:
    """Of an area, its largest square."""
    job = _of(kind)
    assert own_patches(job) == (patches,)
    assert max(patches) <= CROP
    assert JobRules(job).answers(Threat(*patches))


def test_what_all_jobs_answer_is_what_each_answers() -> None:
    """Masks for 3 x 3 do not hide each 2 x 5; those for 2 x 5 hide each 3 x 3."""
    assert answered_by_all([(1, 1), (3, 3), (2, 5)], _of("square"), _of("rectangle")) == [(1, 1), (3, 3)]
    assert answered_by_all([(1, 1), (3, 3), (2, 5)], _of("rectangle")) == [(1, 1), (3, 3), (2, 5)]
