"""The runs of an output, each in short."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.overview.runs_list import run_in_words, runs_of
from smoothcert.workers.runs.run import open_run
from tests.helpers.finished_runs import edit_json, file_of


def test_runs_lists_the_others_of_a_damaged_one(run: Path) -> None:
    """And ends with 1."""
    (run.parent / "0123456789abcdef").mkdir()
    (run.parent / "0123456789abcdef" / "run.json").write_text("{")
    result = CliRunner().invoke(app, ["runs", str(run.parent)])
    assert result.exit_code == 1
    assert run.name in result.stdout
    assert "0123456789abcdef/run.json is damaged" in result.stderr


def test_an_output_without_runs_says_what_it_holds(run: Path, tmp_path: Path) -> None:
    """A folder that exists is not called missing."""
    (tmp_path / "other" / "votes").mkdir(parents=True)
    (tmp_path / "other" / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    for output, says in (
        (tmp_path / "other", "holds no run but notes.txt, votes/; name the `output` of a job"),
        (tmp_path / "empty", "holds no run but nothing"),
        (tmp_path / "other" / "notes.txt", "is a file; name the `output`"),
        (tmp_path / "othre", "does not exist; .* holds other; correct the name"),
        (run, "is a run itself; name the folder that holds it"),
    ):
        with pytest.raises(RequestError, match=f"{output} {says}"):
            runs_of(str(output))


def test_a_complete_run_in_short(run: Path) -> None:
    """Figures are those of _SUCCESS, for no file of votes is read."""
    record = json.loads((run / "run.json").read_text())
    edit_json(run / "_SUCCESS", lambda success: success.update(clean_accuracy=0.5, smoothed_accuracy=None))
    [found], damaged = runs_of(str(run.parent))
    assert damaged == []
    assert found.as_json() == {
        "run_id": run.name,
        "job": "small",
        "path": str(run),
        "checkpoint": record["checkpoint"]["url"],
        "checkpoint_sha256": record["checkpoint"]["sha256"],
        "complete": True,
        "partial": False,
        "shards": 2,
        "published": 2,
        "begun": record["created"],
        "architecture": "vit_tiny_patch16_224",
        "ablation": record["job"]["ablation"],
        "limit": None,
        "images": 13,
        "clean_accuracy": 0.5,
        "smoothed_accuracy": None,
    }


def test_json_lists_the_same_runs(run: Path, finished_partial: Path) -> None:
    """A list of objects on stdout; a damaged run is a line on stderr, and the exit code stays 1."""
    shutil.copytree(finished_partial, run.parent / finished_partial.name)
    (run.parent / "0123456789abcdef").mkdir()
    (run.parent / "0123456789abcdef" / "run.json").write_text("{")
    result = CliRunner().invoke(app, ["runs", str(run.parent), "--json"])
    assert result.exit_code == 1
    assert {one["run_id"]: one["limit"] for one in json.loads(result.stdout)} == {
        run.name: None,
        finished_partial.name: 9,
    }
    assert "0123456789abcdef/run.json is damaged" in result.stderr


def test_an_unfinished_run_in_short(run: Path) -> None:
    """It has no figures; one file of two is there."""
    (run / "_SUCCESS").unlink()
    file_of(run).unlink()
    [found], _ = runs_of(str(run.parent))
    described = found.as_json()
    assert (described["published"], described["shards"], described["complete"]) == (1, 2, False)
    assert {described[name] for name in ("images", "clean_accuracy", "smoothed_accuracy")} == {None}


def test_a_file_that_is_missing_makes_a_run_incomplete(run: Path) -> None:
    """Whatever _SUCCESS says."""
    file_of(run).unlink()
    assert not runs_of(str(run.parent)).runs[0].complete


def test_a_run_with_a_limit_is_partial(finished_partial: Path) -> None:
    """Its limit stands beside it."""
    [found], _ = runs_of(str(finished_partial.parent))
    described = found.as_json()
    assert (described["limit"], described["complete"], described["partial"]) == (9, True, True)


@pytest.mark.parametrize(
    ("created", "shown"),
    [("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05+00:00"), ("yesterday", None), (None, None)],
)
def test_the_oldest_run_comes_first(run: Path, tmp_path: Path, created: str | None, shown: str | None) -> None:
    """In UTC; a run.json that was written by hand may lack it."""
    newer = Path(shutil.copytree(run, tmp_path / "newer"))
    edit_json(newer / "run.json", lambda record: record.update(created="2030-01-01T00:00:00+00:00"))
    edit_json(run / "run.json", lambda record: record.pop("created"))
    if created is not None:
        edit_json(run / "run.json", lambda record: record.update(created=created))
    begun = [found.as_json()["begun"] for found in runs_of(str(tmp_path)).runs]
    assert begun == [shown, "2030-01-01T00:00:00+00:00"]


def test_a_run_in_words_says_whether_it_holds_all_of_the_data(finished: Path, finished_partial: Path) -> None:
    words = run_in_words(open_run(str(finished)))
    assert words.startswith(f"small, run {finished.name}, model weights.pt, SHA-256 ")
    assert "PARTIAL" not in words
    assert run_in_words(open_run(str(finished_partial))).endswith(", PARTIAL: the first 9 images")
