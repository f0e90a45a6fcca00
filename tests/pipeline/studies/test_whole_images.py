"""`smoothcert sensitivity` and `smoothcert amplify`, from a job file to rows, tables, JSON and picture."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smoothcert.workers.runs.run import open_run
from smoothcert.workers.studies.amplification import KIND as AMPLIFICATION
from smoothcert.workers.studies.sensitivity import KIND as SENSITIVITY
from smoothcert.workers.studies.study import studies_of
from smoothcert.workers.studies.worker import StudyWorker
from tests.helpers import jobs
from tests.helpers.commands import check_refused, smoothcert
from tests.helpers.tars import tar_of, write_tar

pytestmark = pytest.mark.usefixtures("in_process")
by_command = pytest.mark.parametrize("command", ["sensitivity", "amplify"])


def job_in(folder: Path, **changes: Any) -> Path:
    """A job over three tars of five images."""
    folder.mkdir(exist_ok=True)
    jobs.write_shards(folder)
    return jobs.write_job(folder, **changes)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of the only study of the only run."""
    (run,) = (folder / "runs").iterdir()
    (study,) = studies_of(open_run(str(run)))
    rows: list[dict[str, Any]] = study.rows().to_pylist()
    return rows


@pytest.mark.parametrize(("command", "kind"), [("sensitivity", SENSITIVITY), ("amplify", AMPLIFICATION)])
def test_every_drawn_image_is_a_row(command: str, kind: Any, tmp_path: Path) -> None:
    """Of a run that has no votes yet. The picture and the JSON are about these rows."""
    done = smoothcert(command, job_in(tmp_path), "--limit", 7, "--picture", tmp_path / "one.png", "--json")
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    assert (value["images"], value["not_measured"], value["candidates"], value["complete"]) == (7, 0, 15, True)
    assert value["choice"] == {"limit": 7, "seed": 0}
    rows = rows_of(tmp_path)
    assert len(rows) == 7 == len({row["key"] for row in rows})
    known = set(kind.columns.names)
    assert all(row[name] is not None for row in rows for name in known)
    assert Image.open(tmp_path / "one.png").format == "PNG"


@by_command
def test_it_does_not_matter_which_ablations_vote(command: str, tmp_path: Path) -> None:
    """Whole images are measured: a job of masks gives the rows of one of columns."""
    columns, masks = tmp_path / "columns", tmp_path / "masks"
    assert smoothcert(command, job_in(columns), "--limit", 3).exit_code == 0
    job = job_in(masks, ablation={"kind": "mask", "threat": 4, "per_axis": 2})
    assert smoothcert(command, job, "--limit", 3).exit_code == 0
    assert rows_of(masks) == rows_of(columns)


@by_command
def test_after_an_interruption_the_same_command_gives_the_same_rows(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before the second part is published; what is there stays as it is."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert smoothcert(command, job_in(whole)).exit_code == 0
    job, encode, parts = job_in(broken), StudyWorker._encode, list[object]()

    def interrupted(worker: StudyWorker, rows: Any) -> bytes:
        parts.append(rows)
        if len(parts) == 2:
            raise KeyboardInterrupt
        return encode(worker, rows)

    with monkeypatch.context() as patch:
        patch.setattr(StudyWorker, "_encode", interrupted)
        assert smoothcert(command, job).exit_code == 130
    (first,) = (broken / "runs").glob("*/studies/*/rows/*.parquet")
    before = first.stat().st_mtime_ns
    assert smoothcert(command, job).exit_code == 0
    assert first.stat().st_mtime_ns == before
    assert rows_of(broken) == rows_of(whole)
    assert len(rows_of(whole)) == 15


@by_command
def test_a_finished_study_answers_without_computing(command: str, tmp_path: Path) -> None:
    """From the folder of the run, too, and even if the tars are gone."""
    job = job_in(tmp_path)
    first = json.loads(smoothcert(command, job, "--json").stdout)
    (run,) = (tmp_path / "runs").iterdir()
    for tar in (tmp_path / "tars").iterdir():
        tar.unlink()
    again = smoothcert(command, run, "--json")
    assert json.loads(again.stdout) == first


@by_command
def test_an_image_that_cannot_be_read_is_a_row_with_its_error(command: str, tmp_path: Path) -> None:
    job = job_in(tmp_path)
    write_tar(tmp_path / "tars", tar_of([("bad.png", b"no image"), ("bad.cls", b"0")]), "03.tar")
    done = smoothcert(command, job)
    assert done.exit_code == 0
    assert "notice: 1 image could not be measured; `error` in the rows says why" in done.output
    assert "over 15 images" in done.output
    (row,) = [row for row in rows_of(tmp_path) if row["key"] == "bad"]
    assert row["error"].startswith("decode_error")


def test_without_a_measured_image_there_is_no_picture(tmp_path: Path) -> None:
    tmp_path.joinpath("tars").mkdir()
    write_tar(tmp_path / "tars", tar_of([("bad.png", b"no image"), ("bad.cls", b"0")]), "00.tar")
    done = smoothcert("sensitivity", jobs.write_job(tmp_path), "--picture", tmp_path / "one.png")
    assert "No image was measured." in done.output
    assert not (tmp_path / "one.png").exists()


@by_command
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing.yaml"], "nothing.yaml"),
        (["JOB", "--picture", "nowhere/one.png"], "--picture nowhere/one.png: cannot be written"),
        (["JOB", "--set", "model.checkpoint=nothing.pt"], "nothing.pt"),
        (["JOB", "--set", "model.colour=blue"], "model.colour"),
    ],
)
def test_a_wrong_request_is_one_line(command: str, arguments: list[str], line: str, tmp_path: Path) -> None:
    job = str(job_in(tmp_path))
    done = smoothcert(command, *(job if argument == "JOB" else argument for argument in arguments))
    check_refused(done, line)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sensitivity", "--share", "1.5"], "error: sensitivity: share: "),
        (["sensitivity", "--share", "0"], "error: sensitivity: share: "),
        (["sensitivity", "--noise", "-1"], "error: sensitivity: noise: "),
        (["sensitivity", "--noise", "nan"], "error: sensitivity: noise: "),
    ],
)
def test_a_wrong_setting_is_one_line(arguments: list[str], line: str, tmp_path: Path) -> None:
    command, *options = arguments
    check_refused(smoothcert(command, job_in(tmp_path), *options), line)


def test_a_network_that_cannot_be_measured_is_one_line(tmp_path: Path) -> None:
    """The first actor finds out."""
    job = job_in(tmp_path)
    done = smoothcert("sensitivity", job, "--share", "0.99")
    check_refused(done, "share: 0.99 of 16 tokens leaves none as it is; use a smaller share")
