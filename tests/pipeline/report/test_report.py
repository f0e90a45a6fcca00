"""A report of each kind of run: three files that agree, small whatever the run."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.report.report import report_of, write_report
from smoothcert.workers.runs.run import open_run
from tests.helpers.finished_runs import file_of, upload
from tests.helpers.judged_runs import image, judged_run
from tests.helpers.studies import attack

MAX_BYTES = 5 * 10**6


def test_each_kind_of_run_has_a_report(any_run: Path, tmp_path: Path) -> None:
    """Column, row without clean predictions, block without labels, PARTIAL; with errors of images and labels."""
    run = open_run(str(any_run))
    html, markdown, record = write_report(report_of(run, sample=10), tmp_path / "report")
    assert html.stat().st_size < MAX_BYTES
    content = json.loads(record.read_text())
    assert content["images"] == sum(content["status"].values())
    assert (content["clean"] is None) == (run.job.images.label is None or not run.job.clean)
    assert (content["smoothed"] is None) == (run.job.images.label is None)
    for text in (html.read_text(), markdown.read_text()):
        assert ("PARTIAL" in text) == run.partial
        assert "UNFINISHED" not in text
        share = content["certified"][run.job.patches[0] - 1]
        assert f"{100 * share['share']:.2f} %" in text


def test_an_unfinished_run_says_so(run: Path, tmp_path: Path) -> None:
    """With how much of it is there; a run without files has no report."""
    (run / "_SUCCESS").unlink()
    file_of(run, 1).unlink()
    html, markdown, _ = write_report(report_of(open_run(str(run))), tmp_path / "report")
    assert "UNFINISHED: 1 of 2 shards" in html.read_text()
    assert "UNFINISHED: 1 of 2 shards" in markdown.read_text()
    file_of(run, 0).unlink()
    with pytest.raises(RequestError, match="has no files of votes yet"):
        report_of(open_run(str(run)))


@pytest.mark.parametrize("votes", [[0] * 12, None])
def test_a_run_of_one_image_has_a_report(tmp_path: Path, votes: list[int] | None) -> None:
    """Also without votes, and without patches in the job."""
    made = judged_run(tmp_path, {"a.tar": [image("0", votes)]}, patches=[])
    html, _, record = write_report(report_of(made), tmp_path / "report")
    content = json.loads(record.read_text())
    assert (content["sample"] is None) == (votes is None)
    assert ('id="atlas"' in html.read_text()) == (votes is not None)


def test_without_clean_predictions_there_is_no_clean_accuracy(tmp_path: Path) -> None:
    made = judged_run(tmp_path, {"a.tar": [image("0", [0] * 12)]}, clean=False)
    text = write_report(report_of(made), tmp_path / "report")[0].read_text()
    assert "whole-image classifier" not in text
    assert "Smoothed over ablations" in text


@pytest.fixture
def report(finished: Path, tmp_path: Path) -> Callable[..., tuple[int, str, Path]]:
    """The command; exit code, output, folder."""

    def run(*options: str) -> tuple[int, str, Path]:
        folder = tmp_path / "out"
        result = CliRunner().invoke(app, ["report", str(finished), "-o", str(folder), *options])
        return result.exit_code, result.stdout + result.stderr, folder

    return run


def test_the_command_prints_headline_and_paths(
    report: Callable[..., tuple[int, str, Path]], finished: Path, tmp_path: Path
) -> None:
    """Names of classes appear in the page, and in the command that makes it again."""
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    code, text, folder = report("--patch", "2", "--names", str(tmp_path / "names.txt"), "--class", "1")
    assert code == 0
    assert "whatever a 2 x 2 patch shows" in text
    assert text.splitlines()[-3:] == [str(folder / f"report.{kind}") for kind in ("html", "md", "json")]
    assert "1 (dog)" in (folder / "report.html").read_text()
    assert "of class 1" in (folder / "report.md").read_text()
    command = f"smoothcert report {finished} --patch 2 --sample 3 --seed 0 --class 1 --names FILE"
    assert command in (folder / "report.html").read_text()


def test_the_command_prints_the_headline_as_json(report: Callable[..., tuple[int, str, Path]], finished: Path) -> None:
    """The figures of report.json that the headline is about, and the files."""
    code, text, folder = report("--patch", "2", "--json")
    found, whole = json.loads(text), json.loads((folder / "report.json").read_text())
    assert code == 0
    assert found.pop("files") == [str(folder / f"report.{kind}") for kind in ("html", "md", "json")]
    assert [(one["patch"], one["rule"]) for one in found["certified"]] == [([2, 2], "exact"), ([2, 2], "margin")]
    assert all(one in whole["certified"] for one in found.pop("certified"))
    assert found.pop("bracket") is None
    assert (found["run_id"], found["job"], found["path"]) == (finished.name, "small", str(finished))
    assert found == {name: whole[name] for name in found}


def test_a_certified_image_that_fell_is_a_failure(tmp_path: Path) -> None:
    """The files are written; a line names the image, and the exit code is 1. A run that is not complete has no
    bracket."""
    run = judged_run(tmp_path, {"a.tar": [image("0", [0] * 12)], "b.tar": [image("1", [0] * 12)]})
    attack(run, {"0": True})
    for options in ([], ["--json"]):
        result = CliRunner().invoke(app, ["report", run.url, "-o", str(tmp_path / "out"), *options])
        assert (result.exit_code, "failed: 1 certified image fell to a 2 x 2 patch" in result.stderr) == (1, True)
        assert (tmp_path / "out" / "report.html").exists()
    file_of(Path(run.url), 1).unlink()
    found = report_of(run)
    assert (found.brackets, found.fallen) == ((), ())


def test_a_patch_must_fit(report: Callable[..., tuple[int, str, Path]]) -> None:
    code, text, _ = report("--patch", "17")
    assert (code, "--patch 17: must be 1 to 16" in text) == (2, True)


def test_a_class_without_images_is_refused(report: Callable[..., tuple[int, str, Path]]) -> None:
    """A page without the weak places that were asked for would say nothing."""
    code, text, folder = report("--class", "99")
    assert (code, "--class 99: no image with votes has this label in " in text) == (2, True)
    assert not folder.exists()


def test_names_must_be_of_the_networks_classes(report: Callable[..., tuple[int, str, Path]]) -> None:
    code, text, _ = report("--names", "imagenet-1k")
    assert (code, "the network has 3 classes" in text) == (2, True)


def test_a_report_is_not_written_to_s3(report: Callable[..., tuple[int, str, Path]]) -> None:
    """Path would make a folder `s3:` here."""
    code, text, _ = report("-o", "s3://bucket/report")
    assert (code, "--output: s3:// is not written to; name a folder of this machine" in text) == (2, True)


def test_a_run_in_a_bucket_has_the_same_report(finished: Path, bucket: str, tmp_path: Path) -> None:
    """But for the run's address."""
    there = upload(finished, bucket)
    for run, folder in ((str(finished), "here"), (there, "there")):
        result = CliRunner().invoke(app, ["report", run, "-o", str(tmp_path / folder)])
        assert result.exit_code == 0
    for file in (tmp_path / "here").iterdir():
        expected = file.read_text().replace(str(finished), there)
        assert (tmp_path / "there" / file.name).read_text() == expected


def test_a_file_in_the_place_of_the_folder_is_one_line(
    report: Callable[..., tuple[int, str, Path]], tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("in the way")
    code, text, folder = report()
    assert (code, f"--output {folder}: cannot be written to (File exists)" in text) == (2, True)


def test_a_failed_write_keeps_the_report_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No half of a page, and nothing aside; a full disk is named."""
    found = report_of(judged_run(tmp_path, {"a.tar": [image("0", [0] * 12)]}))
    before = [path.read_bytes() for path in write_report(found, tmp_path / "out")]

    def half(path: Path, text: str, **_options: str) -> None:
        path.write_bytes(text.encode()[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(RunError, match=r"is full .*; make room there, or name another folder with --output"):
        write_report(found, tmp_path / "out")
    assert [(tmp_path / "out" / f"report.{kind}").read_bytes() for kind in ("html", "md", "json")] == before
    assert len(list((tmp_path / "out").iterdir())) == 3
