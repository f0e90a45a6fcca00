"""A grid of questions against each question alone, answered with its slack."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.job import Job
from smoothcert.pipeline.query.grid import Grid
from smoothcert.pipeline.query.questions import Question, questions_of
from smoothcert.workers.ablations import unions
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.runs.job_rules import JobRules

CROP, CLASSES = 12, 4
ABLATIONS: list[dict[str, Any]] = [
    {"kind": "column", "size": 2, "edges": "wrap"},
    {"kind": "column", "size": 3, "edges": "inside"},
    {"kind": "row", "size": 2},
    {"kind": "block", "size": 4, "stride": 3},
    {"kind": "mask", "threat": 3, "per_axis": 3},
]


def job_of(ablation: dict[str, Any]) -> Job:
    """A labelled job of small images."""
    return Job.model_validate(
        {
            "name": "a grid",
            "images": {"shards": "unused"},
            "model": {"architecture": "unused", "checkpoint": "unused", "classes": CLASSES},
            "preprocess": {"resize": None, "crop": CROP},
            "ablation": ablation,
            "output": "unused",
        }
    )


def cast_of(job: Job, seed: int, images: int = 60) -> Cast:
    """Votes of which a leading class has any share, with margins and labels."""
    random, ablations = np.random.default_rng(seed), JobRules(job).ablations
    shape = (images, ablations.num_ablations)
    leader = random.integers(0, CLASSES, (images, 1))
    votes = np.where(
        random.random(shape) < random.random((images, 1)) ** 0.3, leader, random.integers(0, CLASSES, shape)
    )
    labels = random.integers(-1, CLASSES, images)
    return Cast(votes, random.random(shape, np.float32), labels, leader[:, 0], random.random(images, np.float32))


def certified(grid: Grid, cast: Cast, *, with_slack: bool) -> dict[Question, tuple[list[bool], bool]]:
    """The certified images of each question, and whether the answer is a bound."""
    return {
        grid.questions[number]: (found.certified.tolist(), found.is_bound)
        for number, _, found in grid.answers(cast, with_slack=with_slack)
    }


def some(values: list[Any]) -> st.SearchStrategy[list[Any]]:
    """One to four of these, in any order."""
    return st.lists(st.sampled_from(values), min_size=1, max_size=4, unique=True)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(ABLATIONS), st.integers(0, 2**32 - 1), st.booleans())
def test_answers_do_not_depend_on_what_else_is_asked(
    data: st.DataObject, ablation: dict[str, Any], seed: int, bounded: bool
) -> None:
    """Any grid, in any order, certifies the images that each question certifies alone, from its slack."""
    job = job_of(ablation)
    masks = ablation["kind"] == "mask"
    stride = ablation.get("stride", 1)
    values: dict[str, Any] = {
        "patches": data.draw(some([1, 2, 3, (1, 3), (3, 1)] + ([] if masks else [4, (2, 7)]))),
        "tolerances": data.draw(some([0, 0.02, 0.1])),
        "rules": data.draw(some(["exact", "published" if masks else "margin"])),
    }
    if not masks:
        values |= {"counts": data.draw(some([1, 2, 3])), "strides": data.draw(some([stride, 2 * stride]))}
        if values["rules"] == ["exact"]:
            values |= {"top": data.draw(some([1, 2, 3])), "of": data.draw(some(["prediction", "label"]))}
    questions, cast = questions_of(job, **values), cast_of(job, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unions, "MAX_EXACT", 10_000 if bounded else 1 << 24)
        unions._reach_of_several.cache_clear()
        together = certified(Grid(job, questions), cast, with_slack=False)
        alone = {}
        for question in questions:
            alone |= certified(Grid(job, [question]), cast, with_slack=True)
        unions._reach_of_several.cache_clear()
    assert together == alone


def test_what_is_implied_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve sizes, the largest and the smallest are asked about the images that the others leave open."""
    job = job_of(ABLATIONS[0])
    asked: list[int] = []
    decide = JobRules.decide
    monkeypatch.setattr(
        JobRules, "decide", lambda rules, votes, *of: asked.append(len(votes)) or decide(rules, votes, *of)
    )
    questions, cast = questions_of(job, patches=[*range(1, CROP + 1)]), cast_of(job, 0)
    found = certified(Grid(job, questions), cast, with_slack=False)
    assert [len(asked), asked[0]] == [CROP, 60]
    assert sum(asked) < 60 * 5
    shares = [sum(images) for images, _ in found.values()]
    assert min(shares) > 0 or max(shares) > 0


def test_every_question_has_its_answer_with_slack() -> None:
    """With slack, nothing is implied: a question has the answer that it has alone, places included."""
    job = job_of(ABLATIONS[0])
    questions, cast = questions_of(job, patches=[1, 2, 5], counts=[1, 2]), cast_of(job, 1)
    grid, rules = Grid(job, questions), JobRules(job)
    found = {number: answer for number, _, answer in grid.answers(cast, with_slack=True)}
    assert sorted(found) == [*range(6)]
    for number, (side, patches) in enumerate(product([1, 2, 5], [1, 2])):
        alone = rules.answer(rules.count_cast(cast), unions.Threat(side, side, patches))
        assert found[number].slack.tolist() == alone.slack.tolist()
        assert found[number].places.tolist() == alone.places.tolist()
