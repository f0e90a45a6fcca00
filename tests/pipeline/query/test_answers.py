"""How answers are shown and written: tables and notices for people, a file with a row for each image."""

import json
import os
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.query.answering import query
from smoothcert.pipeline.query.answers import AnswersFile
from smoothcert.pipeline.statistics import share_interval
from smoothcert.workers.ablations import unions
from smoothcert.workers.storage.output_file import OutputFile
from tests.helpers.judged_runs import image, judged_run
from tests.helpers.known_votes import CROP, ask, holds, known_votes, write_run
from tests.helpers.masked_runs import AREA, FEW, WIDE, masked_run, row_list
from tests.helpers.rows import file_of
from tests.helpers.studies import attack


def test_answers_for_each_image(tmp_path):
    """The Parquet file has a row for each question and image, agrees with the counts, and says of which run it is."""
    run, out = write_run(tmp_path, shards=3), tmp_path / "answers.parquet"
    answers = ask(run, "--patch=1", "--patch=2", f"--parquet={out}")
    file = pq.ParquetFile(out)
    said = {"run_id": run.name, "job": "known votes", "checkpoint_sha256": "0" * 64}
    said |= {"complete": False, "partial": False, "shards": 3, "published": 2}
    assert json.loads(file.metadata.metadata[b"smoothcert"]) == said
    assert all(said.items() <= answer.items() for answer in answers)
    rows = file.read().to_pylist()
    assert len(rows) == 2 * 40
    voted = [row for row in rows if row["prediction"] is not None]
    assert len(voted) == 2 * 38
    assert not any(row["certified"] or row["slack"] or row["weakest"] for row in rows if row["prediction"] is None)
    for answer in answers:
        own = [row for row in rows if [row["patch_height"], row["patch_width"]] == answer["patch"]]
        assert sum(row["certified"] for row in own) == answer["certified"]
        assert sum(row["certified"] and row["prediction"] == row["label"] for row in own) == answer["certified_correct"]
        assert sum(row["certified"] for row in own) / len(own) == answer["certified"] / answer["images"]
        assert all(row["certified"] == (row["slack"] >= 0) for row in own if row in voted)
    assert [path.name for path in tmp_path.iterdir() if "answers" in path.name] == ["answers.parquet"]


def test_an_unfinished_run_is_answered_with_a_notice(tmp_path):
    """What is published is answered, and the notice says how much that is; a run without files has no images."""
    run = write_run(tmp_path, shards=3)
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1"])
    assert result.exit_code == 0
    assert "answers are of 2 of 3 shards" in result.stderr
    (nothing,) = ask(write_run(tmp_path / "b", published=0), "--patch=1")
    assert (nothing["images"], nothing["certified"]) == (0, 0)


@pytest.mark.parametrize(
    ("published", "success", "complete", "marks"),
    [
        (2, True, True, []),
        (2, False, False, ["UNFINISHED: 2 of 2 shards, no _SUCCESS"]),  # every file is there, and yet
        (1, False, False, ["UNFINISHED: 1 of 2 shards, no _SUCCESS"]),
        (1, True, False, ["UNFINISHED: 1 of 2 shards"]),
        (0, False, False, ["UNFINISHED: 0 of 2 shards, no _SUCCESS"]),
    ],
)
def test_the_title_names_the_run_and_says_whether_it_is_finished(tmp_path, published, success, complete, marks):
    """The title names job, run and model, and says UNFINISHED unless _SUCCESS and all files are there; so does JSON."""
    run = write_run(tmp_path)
    for file in sorted((run / "votes").iterdir())[published:]:
        file.unlink()
    if not success:
        (run / "_SUCCESS").unlink()
    title = CliRunner().invoke(app, ["query", str(run), "--patch=1"]).stdout.splitlines()[0]
    assert title == ", ".join(["known votes", f"run {run.name}", "model unused, SHA-256 " + "0" * 12, *marks])
    (answer,) = ask(run, "--patch=1")
    assert answer["complete"] is complete


def test_a_finished_partial_run_says_partial(finished_partial):
    """In its title and in JSON; it is complete."""
    result = CliRunner().invoke(app, ["query", str(finished_partial), "--patch=1"])
    assert (result.exit_code, "UNFINISHED" in result.stdout) == (0, False)
    assert ", PARTIAL: the first 9 images" in result.stdout.splitlines()[0]
    (answer,) = ask(finished_partial, "--patch=1")
    assert (answer["complete"], answer["partial"]) == (True, True)


def test_tables_name_top_and_subject_only_where_they_are_asked(tmp_path):
    """In the title if they are the same everywhere, else in columns; a notice says what the counts mean."""
    run = str(write_run(tmp_path))
    result = CliRunner().invoke(app, ["query", run, "--patch=1"])
    assert result.stdout.splitlines()[1] == "patch 1 x 1, patches 1, stride 1, tolerance 0, rule exact"
    assert "top" not in result.stdout + result.stderr
    result = CliRunner().invoke(app, ["query", run, "--patch=1", "--top=2"])
    assert result.stdout.splitlines()[1].endswith("rule exact, top 2, of prediction")
    assert "notice: top K of prediction: certified counts predictions that stay among the K classes" in result.stderr
    result = CliRunner().invoke(app, ["query", run, "--patch=1", "--top=1", "--top=2", "--of=label"])
    assert result.stdout.splitlines()[1].endswith("rule exact, of label")
    head, _, *rows = result.stdout.splitlines()[3:]
    assert (head.split()[0], [row.split()[0] for row in rows]) == ("top", ["1", "2"])
    assert "notice: top K of label: correct counts labels that are among the K classes" in result.stderr


def test_tables_name_certificates_only_where_alarms_are_asked(tmp_path):
    """Masks have no stride; a threshold and the columns of alarms belong to detection."""
    run = masked_run(tmp_path, FEW, 120)
    result = CliRunner().invoke(app, ["query", run.url])
    assert result.stdout.splitlines()[1] == "patch 3 x 3, patches 1, tolerance 0, rule exact"
    assert "silent" not in result.stdout + result.stderr
    grid = ["--certificate=recovery", "--certificate=detection", "--alarm-below=0.25"]
    result = CliRunner().invoke(app, ["query", run.url, *grid])
    _, title, *_, recovery, detection = result.stdout.splitlines()
    assert title == "patch 3 x 3, patches 1, tolerance 0, rule exact"
    assert recovery.split()[:3] == ["recovery", "-", "120"]
    assert recovery.split()[-3:] == ["-", "-", "-"]
    answer = ask(Path(run.url), *grid)[1]
    shares = [f"{answer[name] / 120:.2%}" for name in ("silent", "silent_correct", "false_alarms")]
    assert detection.replace(" %", "%").split()[-3:] == shares
    assert detection.split()[:2] == ["detection", "0.25"]
    assert "notice: detection: certified counts" in result.stderr


def test_an_area_is_all_rectangles_of_so_many_pixels(tmp_path):
    """It has no height and width, in no form."""
    run = masked_run(tmp_path, AREA)
    result = CliRunner().invoke(app, ["query", run.url])
    assert result.stdout.splitlines()[1] == "patch rectangles of up to 6 pixels, patches 1, tolerance 0, rule exact"
    assert result.stderr == ""
    (record,) = query(run).as_records()
    names = ("patch_height", "patch_width", "pixels", "stride")
    assert [record[name] for name in names] == [None, None, 6, None]
    (row, *_) = query(run).images().to_pylist()
    assert [row[name] for name in (*names, "weakest")] == [None, None, 6, None, None]


@pytest.mark.parametrize("rule", ["exact", "published"])
def test_rows_of_images_say_which_are_silent(tmp_path, rule):
    """They add up to the counts; a place where it is weakest belongs to the exact rule."""
    run = masked_run(tmp_path, WIDE, 120)
    found = query(run, patches=3, certificate=["recovery", "detection"], rules=rule, alarm_below=0.25)
    recovery, detection = found.results
    rows = found.images().to_pylist()
    assert {row["alarm"] for row in rows if row["certificate"] == "recovery"} == {None}
    rows = [row for row in rows if row["certificate"] == "detection"]
    voted = [row for row in rows if row["slack"] is not None]
    assert (len(rows), len(voted)) == (120, 119)
    assert [row["prediction"] for row in voted] == [one["clean_prediction"] for one in row_list(run, voted=True)]
    assert {row["alarm"] for row in rows if row not in voted} == {None}
    counts = detection.classes[None]
    assert sum(row["certified"] and not row["alarm"] for row in voted) == counts.silent
    assert sum(row["alarm"] for row in voted) == counts.false_alarms
    assert sum(row["certified"] for row in voted) == counts.certified > recovery.classes[None].certified
    assert {row["alarm_below"] for row in rows} == {0.25}
    assert {row["weakest"] is None for row in voted} == {rule == "published"}


def test_classes_of_detection_add_up(tmp_path):
    """By label; without labels by the class of the whole image."""
    for labelled in (True, False):
        images = {"shards": "unused", "label": "cls" if labelled else None}
        run = masked_run(tmp_path / str(labelled), FEW, 120, images=images)
        total, *classes = ask(Path(run.url), "--certificate=detection", "--alarm-below=0.25", "--by=class")
        for name in ("certified", "silent", "false_alarms"):
            assert sum(one[name] for one in classes) == total[name] > 0
        assert sum(one["images"] for one in classes) == (120 if labelled else 119)


def test_by_class_without_classes(tmp_path):
    """Where no image has a label the classes that were asked for are missing, and a notice says so."""
    run = write_run(tmp_path, shards=1, published=0)
    row = {"key": "a", "shard": "0.tar", "index": 0, "image_offset": 0, "image_bytes": 1, "sha256": bytes(32)}
    row |= {"status": "label_error", "votes": [0] * CROP, "margins": [1.0] * CROP}
    data = file_of([row], CROP, {"run_id": run.name})
    (run / "votes" / "00000-0.parquet").write_bytes(data)
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1", "--by=class"])
    assert "class" in result.stdout
    assert "1 image has no class" in result.stderr
    assert "100.00 %" in result.stdout  # it has votes, and all are of one class


def test_a_bound_says_so(tmp_path, monkeypatch):
    """Patches of too many places are answered by a bound, in the table and in JSON."""
    monkeypatch.setattr(unions, "MAX_EXACT", 0)
    run = write_run(tmp_path)
    (answer,) = ask(run, "--patch=1", "--patches=9")
    assert answer["is_bound"]
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1", "--patches=9"])
    assert ">= " in result.stdout
    assert "sound bound" in result.stderr


def test_accuracy_under_attack_stands_beside_the_certificate(tmp_path):
    """In the table and in JSON, for all classes together; the interval is about what was not attacked."""
    run = judged_run(tmp_path, {"a.tar": [image(str(number), [0] * 7 + [1] * 5) for number in range(4)]})
    without = ask(Path(run.url), "--patch=2")
    assert "under" not in CliRunner().invoke(app, ["query", run.url, "--patch=2"]).stdout
    attack(run, {"0": True, "1": False})
    (answer,) = ask(Path(run.url), "--patch=2")
    low, high = share_interval(1, 2)
    expected = {"share": 0.5, "low": low, "high": high, "attacked": 2, "fell": 1}
    assert [answer] == [without[0] | {"accuracy_under_attack": expected}]
    assert [one["accuracy_under_attack"] for one in ask(Path(run.url), "--patch=2", "--by=class")] == [expected, None]
    result = CliRunner().invoke(app, ["query", run.url, "--patch=2"])
    assert f"50.00 % ({100 * low:.2f} to {100 * high:.2f} %)" in result.stdout
    assert "notice: under attack: accuracy with the patches that attacks found" in result.stderr


def test_attacks_are_in_the_answers_from_python(tmp_path):
    """Records, and the table of a notebook."""
    run = judged_run(tmp_path, {"a.tar": [image("0", [0] * 7 + [1] * 5, None)]}, images={"shards": "x", "label": None})
    assert "under_attack" not in query(run, patches=2).as_records()[0]
    attack(run, {"0": False})
    answers = query(run, patches=2)
    assert answers.brackets[2, 2].attacked == 1
    assert (answers.as_records()[0]["under_attack"], answers.as_records()[0]["fell"]) == (1.0, 0)
    assert "100.00 %" in answers._repr_html_()
    assert "under attack: share of predictions that stay with the patches" in answers._repr_html_()


@pytest.mark.parametrize("options", [[], ["--failing"], ["--json"]])
def test_a_certified_image_that_fell_is_a_failure(tmp_path, options):
    """The answer is printed; a line names the image, and the exit code is 1, as for other wrong data."""
    run = judged_run(tmp_path, {"a.tar": [image("0", [0] * 12)]})
    attack(run, {"0": True})
    result = CliRunner().invoke(app, ["query", run.url, "--patch=2", *options])
    assert (result.exit_code, "failed: 1 certified image fell to a 2 x 2 patch (a.tar 0)" in result.stderr) == (1, True)
    assert result.stdout
    assert CliRunner().invoke(app, ["query", run.url, "--patch=1", *options]).exit_code == 0
    assert "1 certified image fell" in query(run, patches=2)._repr_html_()


def test_the_votes_of_a_run_are_never_overwritten(tmp_path):
    """Answers go to a new file only: not over the votes, nor over earlier answers."""
    run = write_run(tmp_path)
    votes = run / "votes" / "00000-0.parquet"
    before = votes.read_bytes()
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1", f"--parquet={votes}"])
    assert result.exit_code == 2
    assert votes.read_bytes() == before


def test_weakest_places_are_where_the_slack_is(tmp_path):
    """The places named for each image are inside the frame, one a patch, and decide."""
    run, out = write_run(tmp_path), tmp_path / "answers.parquet"
    ask(run, "--patch=5x2", "--patches=1", "--patches=2", f"--parquet={out}")
    for row in pq.read_table(out).to_pylist():
        if row["prediction"] is None:
            continue
        assert len(row["weakest"]) == row["patches"]
        assert all(top <= CROP - 5 and left <= CROP - 2 for top, left in row["weakest"])
        votes, _ = known_votes(int(row["key"][0]), 20)
        cast = votes[int(row["key"].split("-")[1])].tolist()
        lefts = [left for _, left in row["weakest"]]
        assert holds(cast, lefts, 2, set(), 1) == row["certified"]


def test_the_file_of_the_answers_may_be_in_a_bucket(tmp_path: Path, bucket: str) -> None:
    """With the rows of the file on this machine; a second time only with --overwrite."""
    run, place = str(write_run(tmp_path)), f"s3://{bucket}/answers.parquet"
    codes = [
        CliRunner().invoke(app, ["query", run, "--patch=1", "--parquet", *options]).exit_code
        for options in ([place], [place], [place, "--overwrite"], [str(tmp_path / "here")])
    ]
    assert codes == [0, 2, 0, 0]
    boto3.client("s3").download_file(bucket, "answers.parquet", str(tmp_path / "there"))
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


@pytest.mark.parametrize("fault", [None, RuntimeError("within")])
def test_an_answers_file_leaves_nothing_on_a_full_disk(tmp_path, fault, monkeypatch):
    """Closed and removed in every case, also where only the last bytes find no room."""
    monkeypatch.setattr("smoothcert.workers.storage.aside.token_hex", lambda _: "0")
    (tmp_path / ".x.parquet.0.part").symlink_to("/dev/full")
    file = AnswersFile(OutputFile(str(tmp_path / "x.parquet"), "--parquet"))
    with pytest.raises(RunError, match=r"is full \(No space left on device\); .* name another"), file:
        if fault is not None:
            raise fault
    assert "/dev/full" not in map(os.path.realpath, Path("/proc/self/fd").iterdir())
    assert list(tmp_path.iterdir()) == []
