"""Answers of a query against counting by hand, over files of known votes."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.query.questions import questions_of
from tests.helpers.known_votes import CLASSES, CROP, JOB, SIZE, ask, holds, known_votes, write_run


@pytest.mark.parametrize(
    ("width", "patches", "stride", "tolerance"),
    [(1, 1, 1, 0.0), (2, 1, 1, 0.0), (3, 1, 1, 0.1), (1, 2, 1, 0.0), (1, 2, 1, 0.05), (2, 1, 2, 0.0), (1, 2, 3, 0.1)],
)
def test_counts_are_those_by_hand(tmp_path, width, patches, stride, tolerance):
    """Images, right ones and certified ones of every question, counted over all places of the patches."""
    run = write_run(tmp_path)
    options = [f"--patch=5x{width}", f"--patches={patches}", f"--stride={stride}", f"--tolerance={tolerance}"]
    (answer,) = ask(run, *options)
    certified = correct = both = 0
    for number in range(2):
        votes, margins = known_votes(number, 20)
        for index in range(19):
            cast = votes[index, ::stride].tolist()
            fragile = set(np.flatnonzero(margins[index, ::stride] < tolerance).tolist())
            lefts = range(CROP - width + 1)
            spots = [[x] for x in lefts] if patches == 1 else [[x, y] for x in lefts for y in lefts]
            held = all(holds(cast, spot, width, fragile, stride) for spot in spots)
            counts = [cast.count(name) for name in range(CLASSES)]
            right = counts.index(max(counts)) == index % CLASSES
            certified, correct, both = certified + held, correct + right, both + (held and right)
    assert 0 < certified < 38
    assert answer == {
        "run_id": run.name,
        "job": "known votes",
        "checkpoint_sha256": "0" * 64,
        "complete": True,
        "partial": False,
        "shards": [2, 2],
        "patch": [5, width],
        "patches": patches,
        "stride": stride,
        "tolerance": tolerance,
        "rule": "exact",
        "class": None,
        "images": 40,
        "certified": certified,
        "correct": correct,
        "certified_correct": both,
        "is_bound": False,
    }


def test_several_values_make_a_grid(tmp_path):
    """Every combination is answered, in order; the margin rule never certifies more."""
    run = write_run(tmp_path)
    answers = ask(run, "--patch=1", "--patch=2x3", "--stride=1", "--stride=2", "--rule=exact", "--rule=margin")
    assert [(a["patch"], a["stride"], a["rule"]) for a in answers] == [
        (patch, stride, rule) for patch in ([1, 1], [2, 3]) for stride in (1, 2) for rule in ("exact", "margin")
    ]
    assert all(
        exact["certified"] >= margin["certified"] for exact, margin in zip(answers[::2], answers[1::2], strict=True)
    )


def test_a_range_of_sides_is_each_of_them(tmp_path):
    """Both ends are in; with a step, every so many; other patches may stand beside it."""
    run = write_run(tmp_path)
    assert ask(run, "--patch=2..4") == ask(run, "--patch=2", "--patch=3", "--patch=4")
    answers = ask(run, "--patch=5x2", "--patch=1..12..4", "--patch=7..7")
    assert [answer["patch"] for answer in answers] == [[5, 2], [1, 1], [5, 5], [9, 9], [7, 7]]


@pytest.mark.parametrize("labelled", [True, False])
def test_classes_add_up_to_all_images(tmp_path, labelled):
    """Classes are labels, or predictions without labels, where nothing is right or wrong; they add up."""
    answers = ask(write_run(tmp_path, labelled=labelled), "--patch=1", "--by=class")
    total, *classes = answers
    assert (total["class"], total["images"]) == (None, 40)
    assert [answer["class"] for answer in classes] == list(range(CLASSES))
    assert sum(answer["certified"] for answer in classes) == total["certified"]
    assert sum(answer["images"] for answer in classes) == (40 if labelled else 38)
    if labelled:
        assert sum(answer["correct"] for answer in classes) == total["correct"]
    else:
        assert (
            {answer["correct"] for answer in answers} == {answer["certified_correct"] for answer in answers} == {None}
        )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--patch=x"], "expected a side such as 32"),
        (["--patch=13"], "must be 1x1 to 12x12"),
        (["--patch=1..13"], "--patch 13x13: must be 1x1 to 12x12"),
        (["--patch=0..2"], "--patch 0x0: must be 1x1 to 12x12"),
        (["--patch=3..2"], "sides such as 1..64"),
        (["--patch=1..9..0"], "1..64..3"),
        (["--patch=1..99999"], "expected a side such as 32"),
        (["--patch=0"], "must be 1x1 to 12x12"),
        (["--patch=1", "--parquet=/nowhere/x.parquet"], "cannot be written"),
        (["--patch=1", "--parquet=/"], "is there already"),
        (["--patch=1", "--parquet=."], "is there already"),
        (["--patch=1", "--parquet=s3://bucket/x.parquet"], "name a file of this machine"),
        (["--patch=1", "--tolerance=inf"], "finite number"),
        (["--patch=" + "9" * 5000], "expected a side such as 32"),
        (["--patch=1", "--patches=145"], "must be 1 to 144"),
        (["--patch=1", "--stride=13"], "up to 12"),
    ],
)
def test_a_wrong_question_is_one_line(tmp_path, options, says):
    """What cannot be answered ends with exit code 2 and one line."""
    result = CliRunner().invoke(app, ["query", str(write_run(tmp_path)), *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({"preprocess": {"resize": None, "crop": CROP - 1}}, "its columns are not those of the job"),
        ({"model": JOB["model"] | {"classes": 2}}, "has other votes than run.json's job gives"),
    ],
)
def test_votes_of_another_job_are_refused(tmp_path, job, says):
    """Votes that run.json's job cannot have given are an error, not an answer."""
    result = CliRunner().invoke(app, ["query", str(write_run(tmp_path, **job)), "--patch=1"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr


def test_a_job_that_was_edited_is_refused(tmp_path):
    """Of narrower columns the same votes would certify more: the job must be the one that gave the run its id."""
    run = write_run(tmp_path)
    record = json.loads((run / "run.json").read_text())
    record["job"]["ablation"]["size"] = 1
    (run / "run.json").write_text(json.dumps(record))
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "contradicts itself" in result.stderr


def test_a_stride_between_is_refused(tmp_path):
    """Votes at stride 2 answer multiples of 2 only."""
    run = write_run(tmp_path, published=0, ablation={"kind": "column", "size": SIZE, "stride": 2})
    result = CliRunner().invoke(app, ["query", str(run), "--stride=3"])
    assert result.exit_code == 2
    assert "votes at stride 2, so name a multiple of 2" in result.stderr


def test_a_folder_without_a_run_is_refused(tmp_path):
    """The error says what a run is named like."""
    result = CliRunner().invoke(app, ["query", str(tmp_path), "--patch=1"])
    assert result.exit_code == 2
    assert "no run here" in result.stderr


def test_verify_names_a_run_of_an_output(tmp_path):
    """As query does."""
    run = write_run(tmp_path)
    assert f"OUTPUT/RUN_ID, such as {run}\n" in CliRunner().invoke(app, ["verify", str(run.parent)]).stderr


def test_an_unknown_rule_is_refused_by_the_rules_there_are():
    """Only a caller in Python can name one: the command knows its choices."""
    job = Job.model_validate(JOB)
    assert [question.rule for question in questions_of(job, patches=[(1, 1)])] == ["exact"]
    with pytest.raises(RequestError, match="--rule best: the run's ablations answer exact and margin only"):
        questions_of(job, patches=[(1, 1)], rules=["best"])
