"""A grid of questions: every combination of the values, and one line for each that the votes do not answer."""

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.query.answering import query
from smoothcert.pipeline.query.questions import questions_of
from smoothcert.workers.runs.run import open_run
from tests.helpers.judged_runs import image, judged_run
from tests.helpers.known_votes import CROP, JOB, SIZE, ask, write_run
from tests.helpers.masked_runs import AREA, FEW, TWO


def test_a_label_needs_labels(tmp_path):
    """A job without labels has no answer; an image without one is not certified, and belongs to no class."""
    run = write_run(tmp_path, labelled=False)
    result = CliRunner().invoke(app, ["query", str(run), "--of=label"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: --of label: the images of this run have no labels; leave it out to ask about the prediction\n"
    )
    some = judged_run(tmp_path, {"a.tar": [image("0", [0] * 12), image("1", [0] * 12, label=None), image("2", None)]})
    (answer,) = ask(some.url, "--patch=1", "--of=label")
    assert (answer["images"], answer["certified"], answer["correct"], answer["certified_correct"]) == (3, 1, 1, 1)
    rows = query(some, patches=1, of="label").images().to_pylist()
    assert [(row["certified"], row["slack"] is None, row["weakest"] is None) for row in rows] == [
        (True, False, False),
        (False, True, True),
        (False, True, True),
    ]


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({}, ["--patch=5"], "patch 5 x 5: no mask hides it at (0, 3) (top, left); the masks were made for 3 x 3"),
        ({}, ["--patch=2x12"], "the largest square that this run answers is 3 x 3; --patch 1..3 asks for all squares"),
        ({"ablation": AREA}, ["--patch=1..12"], "this run answers is 2 x 2; --patch 1..2 asks for all squares that it"),
        ({"ablation": TWO}, ["--patch=1..3"], "2 patches of 3 x 3: no mask hides them at (3, 3) and "),
        (
            {"ablation": TWO},
            ["--patch=1", "--patch=9", "--patches=1"],
            "--patch 1..2 asks for all squares that it answers",
        ),
        (
            {},
            ["--patches=2"],
            "--patches 2: the masks of this run were made for 1 at once; ask for no more, or certify",
        ),
        ({}, ["--stride=1"], "--stride 1: masks have no stride, all of them vote; leave it out"),
        ({}, ["--rule=margin"], "--rule margin: the run's ablations answer exact and published only; name one"),
        ({}, ["--top=2"], "--top 2: votes of masks certify the prediction alone"),
        ({}, ["--certificate=detection", "--of=label"], "--of label: votes of masks certify the prediction alone"),
        ({}, ["--alarm-below=1"], "--alarm-below: only detection raises alarms; add --certificate detection"),
        ({}, ["--certificate=detection", "--alarm-below=inf"], "--alarm-below inf: must be a finite margin from 0 on"),
        ({"clean": False}, ["--certificate=detection"], "no classes of whole images; certify again with `clean: true`"),
        (
            {"ablation": {"kind": "column", "size": 3}},
            ["--certificate=detection"],
            "--certificate detection: ablations of kind column answer recovery only; ask a run of masks",
        ),
    ],
)
def test_a_question_that_masks_do_not_answer_is_one_line(tmp_path, changes, options, says):
    """Also of a run without files; and a run of columns has no alarms."""
    run = judged_run(tmp_path, {}, **{"ablation": FEW} | changes)
    result = CliRunner().invoke(app, ["query", run.url, *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


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
        (
            ["--patch=1", "--parquet=gs://bucket/x.parquet"],
            "gs:// is not written to; name a file of this machine, or s3://BUCKET/KEY",
        ),
        (["--patch=1", "--tolerance=inf"], "finite number"),
        (["--patch=" + "9" * 5000], "expected a side such as 32"),
        (["--patch=1", "--patches=145"], "must be 1 to 144"),
        (["--patch=1", "--stride=13"], "up to 12"),
        (["--top=4"], "--top 4: must be 1 to 3; all 4 classes are always among the first 4"),
        (
            ["--top=1", "--top=2", "--rule=exact", "--rule=margin"],
            "--rule margin: answers only --top 1 of the prediction, not --top 2 --of prediction; use --rule exact",
        ),
        (["--of=label", "--rule=margin"], "not --top 1 --of label; use --rule exact"),
        (["--rule=published"], "--rule published: the run's ablations answer exact and margin only; name one"),
    ],
)
def test_a_wrong_question_is_one_line(tmp_path, options, says):
    """What cannot be answered ends with exit code 2 and one line."""
    result = CliRunner().invoke(app, ["query", str(write_run(tmp_path)), *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_stride_between_is_refused(tmp_path):
    """Votes at stride 2 answer multiples of 2 only."""
    run = write_run(tmp_path, published=0, ablation={"kind": "column", "size": SIZE, "stride": 2})
    result = CliRunner().invoke(app, ["query", str(run), "--stride=3"])
    assert result.exit_code == 2
    assert "votes at stride 2, so name a multiple of 2" in result.stderr


def test_an_unknown_rule_is_refused_by_the_rules_there_are():
    """Only a caller in Python can name one: the command knows its choices."""
    job = Job.model_validate(JOB)
    assert [question.claim.rule for question in questions_of(job, patches=[(1, 1)])] == ["exact"]
    with pytest.raises(RequestError, match="--rule best: the run's ablations answer exact and margin only"):
        questions_of(job, patches=[(1, 1)], rules=["best"])


def test_a_single_value_needs_no_list(tmp_path):
    """Nor does the run have to be open; an array is as good as a list."""
    path = write_run(tmp_path)
    run = open_run(path)
    one = query(str(path), patches=2, counts=2, strides=2, tolerances=0.1, rules="margin")
    assert one.results == query(run, patches=[2], counts=[2], strides=[2], tolerances=[0.1], rules=["margin"]).results
    assert query(run, counts=np.array([1, 2])).results == query(run, counts=[1, 2]).results
    assert query(run, top=2, of="label").results == query(run, top=[2], of=["label"]).results


def test_a_caller_in_python_gets_the_errors_of_the_command(tmp_path):
    """The same lines; by default the patches of the job are asked."""
    run = open_run(write_run(tmp_path))
    assert [result.question.patch for result in query(run).results] == [(side, side) for side in JOB["patches"]]
    for question, says in (
        ({"patches": [99]}, f"--patch 99x99: must be 1x1 to {CROP}x{CROP}, the image"),
        ({"patches": ["2"]}, "patch '2': must be the side of a square or (height, width), in whole pixels"),
        ({"strides": ["2"]}, "--stride '2': must be a whole number"),
        ({"strides": [2.0]}, "--stride 2.0: must be a whole number"),
        ({"counts": [1.5]}, "--patches 1.5: must be a whole number"),
        ({"tolerances": ["0.1"]}, "--tolerance '0.1': must be a number"),
        ({"rules": "best"}, "--rule best: the run's ablations answer exact and margin only; name one"),
        ({"top": 0}, "--top 0: must be 1 to 3; all 4 classes are always among the first 4"),
        ({"top": 1.0}, "--top 1.0: must be a whole number"),
        ({"of": "labels"}, "--of labels: must be prediction or label"),
        ({"certificate": "alarm"}, "--certificate alarm: must be recovery or detection"),
        ({"alarm_below": "1"}, "--alarm-below '1': must be a number"),
        ({"patches": [1], "counts": [0]}, f"--patches 0: must be 1 to {CROP**2}, the pixels of the image"),
    ):
        with pytest.raises(RequestError, match=f"^{re.escape(says)}$"):
            query(run, **question)
