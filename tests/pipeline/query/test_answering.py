"""Answers of a query against counting by hand, over files of known votes."""

import json
import multiprocessing
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.rules import Claim
from smoothcert.pipeline import processes
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.query import answering
from smoothcert.pipeline.query.answering import query
from smoothcert.pipeline.query.answers import as_json, as_records, cells_of, notices_of, title_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.run import open_run
from tests.helpers.finished_runs import file_of, finish, rows_of
from tests.helpers.html_tags import rows_and_lines
from tests.helpers.known_votes import CLASSES, CROP, JOB, ask, holds, known_votes, write_run
from tests.helpers.masked_runs import AREA, FEW, TWO, WIDE, ByHand, masked_run, row_list
from tests.helpers.studies import attack


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
        "shards": 2,
        "published": 2,
        "patch": [5, width],
        "pixels": None,
        "patches": patches,
        "stride": stride,
        "tolerance": tolerance,
        "certificate": "recovery",
        "rule": "exact",
        "alarm_below": None,
        "top": 1,
        "of": "prediction",
        "class": None,
        "images": 40,
        "certified": certified,
        "correct": correct,
        "certified_correct": both,
        "silent": None,
        "silent_correct": None,
        "false_alarms": None,
        "is_bound": False,
        "accuracy_under_attack": None,
    }


@pytest.mark.parametrize(
    ("top", "of", "patches", "stride", "tolerance"),
    [
        (2, "prediction", 1, 1, 0.0),
        (1, "label", 1, 1, 0.0),
        (3, "label", 2, 1, 0.0),
        (3, "label", 1, 1, 0.1),
        (2, "label", 2, 2, 0.05),
    ],
)
def test_counts_of_top_k_are_those_by_hand(tmp_path, top, of, patches, stride, tolerance):
    """Of the prediction and of the label; correct means that the label is among the K with the most votes."""
    options = [f"--top={top}", f"--of={of}", f"--patches={patches}", f"--stride={stride}", f"--tolerance={tolerance}"]
    (answer,) = ask(write_run(tmp_path), "--patch=3x2", *options)
    certified = correct = both = 0
    for number in range(2):
        votes, margins = known_votes(number, 20)
        for index in range(19):
            cast = votes[index, ::stride].tolist()
            ranked = sorted(range(CLASSES), key=lambda name: (-cast.count(name), name))
            label = index % CLASSES
            fragile = set(np.flatnonzero(margins[index, ::stride] < tolerance).tolist())
            spots = combinations_with_replacement(range(CROP - 1), patches)
            subject = label if of == "label" else ranked[0]
            held = all(holds(cast, spot, 2, fragile, stride, top, subject) for spot in spots)
            right = label in ranked[:top] if of == "label" else ranked[0] == label
            certified, correct, both = certified + held, correct + right, both + (held and right)
    assert 0 < both < 38
    assert (answer["top"], answer["of"]) == (top, of)
    assert (answer["certified"], answer["correct"], answer["certified_correct"]) == (certified, correct, both)


@pytest.mark.parametrize(
    ("ablation", "patch", "threats"),
    [
        (FEW, [], [Threat(3, 3)]),  # what the masks were made for
        (FEW | {"early_exit": True}, ["--patch=2x3"], [Threat(2, 3)]),
        (FEW | {"threat": "2x5"}, [], [Threat(2, 5)]),
        (WIDE, ["--patch=4x3"], [Threat(4, 3)]),
        (TWO, [], [Threat(2, 2, 2)]),
        (TWO, ["--patches=1"], [Threat(2, 2, 1)]),
        (AREA, [], [Threat(tall, wide) for tall in range(1, 7) for wide in range(1, 7) if tall * wide <= 6]),
        (AREA, ["--patch=2x2"], [Threat(2, 2)]),
    ],
)
def test_counts_of_masks_are_those_by_hand(tmp_path, ablation, patch, threats):
    """Both certificates by both rules, with a tolerance and thresholds of alarms, place by place."""
    run = masked_run(tmp_path, ablation, 120)
    images, hand = row_list(run, voted=True), ByHand(ablation)
    grid = ["--tolerance=0", "--tolerance=0.25", "--alarm-below=0", "--alarm-below=0.5"]
    grid += ["--certificate=recovery", "--certificate=detection", "--rule=exact", "--rule=published"]
    answers = ask(Path(run.url), *patch, *grid)
    asked = [(one["tolerance"], one["certificate"], one["rule"], one["alarm_below"]) for one in answers]
    detection = [("detection", rule, threshold) for rule in ("exact", "published") for threshold in (0, 0.5)]
    claims = [("recovery", "exact", None), ("recovery", "published", None), *detection]
    assert asked == [(tolerance, *claim) for tolerance in (0, 0.25) for claim in claims]
    for answer, (tolerance, certificate, rule, alarm_below) in zip(answers, asked, strict=True):
        counts = dict.fromkeys(("certified", "correct", "certified_correct"), 0)
        if certificate == "detection":
            counts |= dict.fromkeys(("silent", "silent_correct", "false_alarms"), 0)
        for one in images:
            if certificate == "recovery":
                held = (
                    hand.recovers(one, *threats, tolerance=tolerance)
                    if rule == "exact"
                    else hand.all_agree(one, tolerance)
                )
                right = hand.prediction(one) == one["label"]
            else:
                held = hand.detects(one, *threats, tolerance=tolerance, alarm_below=alarm_below)
                if rule == "published":
                    held = hand.all_comply(one, tolerance, alarm_below)
                right = one["clean_prediction"] == one["label"]
                alarm = hand.alarm(one, alarm_below)
                counts["silent"] += held and not alarm
                counts["silent_correct"] += held and not alarm and right
                counts["false_alarms"] += alarm
            counts["certified"] += held
            counts["correct"] += right
            counts["certified_correct"] += held and right
        assert {name: answer[name] for name in counts} == counts
        assert 0 < counts["certified"] < len(images)
    is_area = ablation == AREA and not patch
    said = (None, 6) if is_area else ([*threats[0][:2]], None)
    assert {(str(one["patch"]), one["pixels"]) for one in answers} == {(str(said[0]), said[1])}
    assert {(one["patches"], one["stride"]) for one in answers} == {(threats[0].patches, None)}


def test_the_exact_rule_certifies_more_against_small_patches(tmp_path):
    """Where several masks hide each place; against the whole threat both rules of masks are the same."""
    run = masked_run(tmp_path, WIDE, 120)
    grid = ["--patch=7", "--patch=3", "--certificate=recovery", "--certificate=detection"]
    answers = ask(Path(run.url), *grid, "--rule=exact", "--rule=published")
    found = {(one["patch"][0], one["certificate"], one["rule"]): one["certified"] for one in answers}
    for certificate in ("recovery", "detection"):
        assert found[7, certificate, "exact"] == found[7, certificate, "published"]
        assert found[3, certificate, "exact"] > found[3, certificate, "published"]
        assert found[7, certificate, "published"] == found[3, certificate, "published"]


def test_the_threat_of_masks_is_answered_as_it_is_stored(tmp_path):
    """Of a run that a network made: the columns of its files say how many images have each certificate."""
    run = finish(tmp_path, ablation={"kind": "mask", "threat": 4, "per_axis": 2})
    rows = [row for number in (0, 1) for row in rows_of(file_of(run, number)) if row["votes"] is not None]
    for certificate, rule, column in (
        ("recovery", "exact", "recovery_certified"),
        ("recovery", "published", "recovery_published"),
        ("detection", "published", "detection_certified"),
    ):
        (answer,) = ask(run, f"--certificate={certificate}", f"--rule={rule}")
        assert answer["certified"] == sum(row[column] for row in rows)
        assert answer["patch"] == [4, 4]


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


def test_a_folder_without_a_run_is_refused(tmp_path):
    """The error says what a run is named like."""
    result = CliRunner().invoke(app, ["query", str(tmp_path), "--patch=1"])
    assert result.exit_code == 2
    assert "no run here" in result.stderr


def test_verify_names_a_run_of_an_output(tmp_path):
    """As query does."""
    run = write_run(tmp_path)
    assert f"OUTPUT/RUN_ID, such as {run}\n" in CliRunner().invoke(app, ["verify", str(run.parent)]).stderr


def test_a_caller_in_python_asks_as_the_command_does(tmp_path):
    """Every option has its argument; sides, tuples and numbers of NumPy are patches."""
    run = write_run(tmp_path)
    options = ["--patch=2", "--patch=5x3", "--patches=1", "--patches=2", "--stride=1", "--stride=2", "--tolerance=0.1"]
    found = query(
        open_run(run),
        patches=[np.int64(2), (5, 3)],
        counts=[1, 2],
        strides=[1, 2],
        tolerances=[0.1],
        rules=["exact", "margin"],
        by_class=True,
    )
    assert as_json(found) == ask(run, *options, "--rule=exact", "--rule=margin", "--by=class")
    question = found.results[0].question
    assert {*map(type, [*question.patch, *question[1:]])} == {int, float, Claim}
    wider = query(run, top=[np.int64(1), 2], of=["prediction", "label"])
    assert as_json(wider) == ask(run, "--top=1", "--top=2", "--of=prediction", "--of=label")
    masked = masked_run(tmp_path / "masked", FEW)
    detected = query(masked, certificate=["recovery", "detection"], alarm_below=[0, np.float32(0.5)], rules="exact")
    options = ["--certificate=recovery", "--certificate=detection", "--alarm-below=0", "--alarm-below=0.5"]
    assert as_json(detected) == ask(Path(masked.url), *options)
    assert as_json(query(masked, certificate="detection", alarm_below=0.5)) == as_json(detected)[-1:]
    squares = query(open_run(run), patches=np.arange(1, 4)).results
    assert [result.question.patch for result in squares] == [(1, 1), (2, 2), (3, 3)]


def test_a_notebook_shows_the_table_of_the_command(tmp_path):
    """With its title and notices; a terminal shows one line."""
    found = query(open_run(write_run(tmp_path, shards=3)), patches=[1, 2], by_class=True)
    rows, lines = rows_and_lines(found._repr_html_())
    assert rows == [[*cells_of(found)[0]], *([*row.values()] for row in cells_of(found))]
    assert lines == [title_of(found), *(f"notice: {notice}" for notice in notices_of(found))]
    assert len(lines) == 2
    assert repr(found) == f"<Answers: {title_of(found)}>"
    nothing = query(open_run(write_run(tmp_path / "b", published=0)), patches=[1])
    assert rows_and_lines(nothing._repr_html_())[0][1][-2:] == ["-", "-"]


def test_answers_are_rows_of_data_frames(tmp_path):
    """Of questions, as in CSV, and of images, as in the file that the command writes."""
    run, out = write_run(tmp_path), tmp_path / "answers.parquet"
    ask(run, "--patch=1", "--patch=2x3", f"--parquet={out}")
    found = query(open_run(run), patches=[1, (2, 3)])
    assert found.as_records() == [*as_records(found)]
    frame = pd.DataFrame(found.as_records())
    assert frame.patch_width.tolist() == [1, 3]
    assert frame.certified.tolist() == [result.classes[None].certified for result in found.results]
    expected = pq.read_table(out).to_pylist()
    assert sorted(found.images().to_pylist(), key=str) == sorted(expected, key=str)
    empty = query(open_run(write_run(tmp_path / "b", published=0)), patches=[1])
    assert empty.images().schema == found.images().schema


def test_attacks_answer_only_the_question_that_they_asked(tmp_path):
    """One patch of their size, against all votes, by the exact rule; and only for a run that is complete."""
    run = open_run(str(write_run(tmp_path)))
    attack(run, {"0-0": False}, (2, 3))
    attack(run, {"0-0": False}, (1, 1), finished=False)
    grid = {"counts": [1, 2], "strides": [1, 2], "tolerances": [0, 0.1]}
    sizes = [(2, 3), (3, 2), (1, 1)]
    for claims in ({"rules": ["exact", "margin"]}, {"top": [1, 2], "of": ["prediction", "label"]}):
        answers = query(run, patches=sizes, **grid, **claims)
        (attacked,) = [one.question for one in answers.results if answers.bracket_of(one.question) is not None]
        assert attacked == ((2, 3), 1, 1, 0.0, Claim())
        assert answers.brackets.keys() == {(2, 3)}
    assert query(run, patches=[(2, 3)], counts=2).brackets == {}
    next(path for path in (tmp_path / run.run_id / "votes").iterdir()).unlink()
    assert query(run, patches=[(2, 3)]).brackets == {}


@pytest.fixture
def work_aside(monkeypatch):
    """Every file is work that other processes share, after the first two; says how many processes were started for."""
    started = []

    def counted(work, batches, number):
        started.append(number)
        return processes.map_in_processes(work, batches, number)

    monkeypatch.setattr(answering, "_VOTES_AT_ONCE", 1)
    monkeypatch.setattr(answering, "_SECONDS_WORTH_A_PROCESS", 1e-9)
    monkeypatch.setattr(answering, "map_in_processes", counted)
    return started


@pytest.mark.parametrize(
    "options",
    [
        ["--json", "--patch=1..3", "--patches=1", "--patches=2", "--stride=1", "--stride=2", "--tolerance=0.05"],
        ["--by=class", "--top=1", "--top=2", "--of=label", "--parquet=OUT"],
        ["--failing", "--sort=slack", "--limit=9", "--patch=2", "--parquet=OUT"],
        ["--failing", "--format=csv", "--patch=2", "--patches=2"],
    ],
)
def test_several_processes_write_the_same(tmp_path, monkeypatch, work_aside, options):
    """Tables, JSON, CSV, messages and the file of images, byte for byte."""
    run, out, written = write_run(tmp_path, shards=7, published=6), tmp_path / "images.parquet", []
    for number in (1, 2):
        monkeypatch.setattr(processes, "count_cores", lambda number=number: number)
        given = [option.replace("OUT", str(out)) for option in options]
        ended = CliRunner().invoke(app, ["query", str(run), "--overwrite", *given])
        assert ended.exit_code == 0, ended.stderr
        written.append((ended.stdout, ended.stderr, out.read_bytes() if out.exists() else b""))
    assert written[0] == written[1]
    assert work_aside == [2]
    assert not multiprocessing.active_children()


def test_masks_are_answered_by_several_processes(tmp_path, work_aside):
    """Detection reads more columns."""
    run = masked_run(tmp_path, FEW, 120)
    one, two = (query(run, certificate=["recovery", "detection"], processes=number) for number in (1, 2))
    assert as_json(one) == as_json(two)


def test_a_damaged_file_is_the_same_error(tmp_path, work_aside):
    """The first one in the order of the run, whoever answers."""
    run, errors = write_run(tmp_path, shards=6, published=6), []
    for number in (4, 5):
        file_of(run, number).write_bytes(b"damaged")
    for number in (1, 2):
        with pytest.raises(RunError) as raised:
            query(run, processes=number)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
    assert "00004-4" in errors[0]
    assert work_aside == [2]
    assert not multiprocessing.active_children()


def test_an_interrupt_ends_all_processes(tmp_path, work_aside):
    """Wherever it comes."""
    run, heard = open_run(write_run(tmp_path, shards=6, published=6)), []

    def hear(*_):
        heard.append(len(multiprocessing.active_children()))
        if heard[-1]:
            raise KeyboardInterrupt

    questions = [result.question for result in query(run, patches=2).results]
    with pytest.raises(KeyboardInterrupt):
        answering.answer(run, questions, per_image=[hear], processes=2)
    assert heard[:2] == [0, 0]
    assert heard[-1] > 0
    assert not multiprocessing.active_children()


def test_a_small_run_starts_no_process(tmp_path, monkeypatch):
    """It is answered sooner than processes start."""
    monkeypatch.setattr(answering, "_VOTES_AT_ONCE", 1)
    monkeypatch.setattr(multiprocessing, "get_context", None)
    assert query(write_run(tmp_path, shards=6, published=6), processes=8).results[0].classes[None].images == 120
