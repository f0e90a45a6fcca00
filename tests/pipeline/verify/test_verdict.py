"""What `smoothcert verify` prints, as text and as JSON, and its exit code."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.pipeline.cli import app
from smoothcert.pipeline.overview.summary import summarise
from smoothcert.pipeline.overview.tables import summary_table
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.runs.run import open_run
from tests.helpers.finished_runs import file_of, rows_of, write
from tests.helpers.html_tags import rows_and_lines
from tests.pipeline.overview.test_tables import printed


def smoothcert(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_the_command(run: Path) -> None:
    """Problems, then notices, then the run with its figures, then a verdict; exit code 1 with problems."""
    code, text = smoothcert(run)
    sha256 = json.loads((run / "run.json").read_text())["checkpoint"]["sha256"]
    assert code == 0
    assert text.splitlines()[0] == f"small, run {run.name}, model weights.pt, SHA-256 {sha256[:12]}"
    assert text.splitlines()[-1] == "13 rows in 2 files: all right"
    (run / "_SUCCESS").unlink()
    shutil.copy(file_of(run), run / "votes" / "x.parquet")
    code, text = smoothcert(run)
    assert code == 1
    assert text.splitlines()[:2] == [
        "problem: votes/x.parquet: belongs to no shard of this run",
        "notice: unfinished: 2 of 2 shards are published",
    ]
    assert text.splitlines()[-1].startswith("13 rows in 2 files: UNFINISHED, 1 problem; run the job's command again")
    assert smoothcert(run / "votes")[0] == 2


def test_json_names_the_run_and_its_figures(run: Path, finished_partial: Path) -> None:
    """One object on stdout: which run, how complete, what is wrong, and the figures of the rows, counted anew."""
    success = json.loads((run / "_SUCCESS").read_text())
    shutil.copy(file_of(run), run / "votes" / "x.parquet")
    code, text = smoothcert(run, "--json")
    found, record = json.loads(text), json.loads((run / "run.json").read_text())
    assert code == 1
    assert found.pop("figures") == {
        "labels": sum(row["label"] is not None for file in success["files"] for row in rows_of(run / file)),
        **{name: success[name] for name in ("status", "clean_accuracy", "smoothed_accuracy", "certified")},
    }
    assert found == {
        "run_id": run.name,
        "job": "small",
        "checkpoint": record["checkpoint"]["url"],
        "checkpoint_sha256": record["checkpoint"]["sha256"],
        "complete": True,
        "partial": False,
        "limit": None,
        "shards": 2,
        "published": 2,
        "images": 13,
        "problems": ["votes/x.parquet: belongs to no shard of this run"],
        "notices": [],
        "replay": None,
    }
    part = json.loads(smoothcert(finished_partial, "--json")[1])
    assert (part["complete"], part["partial"], part["limit"]) == (True, True, 9)


def test_a_finished_partial_run_is_all_right_and_partial(finished_partial: Path) -> None:
    """PARTIAL stands in the verdict: the figures are of the first images alone."""
    code, text = smoothcert(finished_partial)
    assert code == 0
    assert text.splitlines()[-1] == "9 rows in 2 files: all right, PARTIAL (only the first 9 images)"


@pytest.mark.parametrize(
    ("files", "success", "wrong", "code", "allowed"),
    [
        (2, True, False, 0, 0),
        (2, False, False, 1, 0),  # every file is there, and yet
        (1, False, False, 1, 0),
        (0, False, False, 1, 0),
        (1, True, False, 1, 0),  # what _SUCCESS names is lost: said as a problem, and allowed
        (1, False, True, 1, 1),
        (2, True, True, 1, 1),
    ],
)
def test_an_unfinished_run_is_never_all_right(
    run: Path, files: int, success: bool, wrong: bool, code: int, allowed: int
) -> None:
    """Exit code 1 without _SUCCESS or without a file; --allow-incomplete excuses that, and no problem."""
    if wrong:
        write(file_of(run), rows_of(file_of(run))[:-1], renew=False)
    for file in sorted((run / "votes").iterdir())[files:]:
        file.unlink()
    if not success:
        (run / "_SUCCESS").unlink()
    complete = success and files == 2
    for options, expected in (([], code), (["--allow-incomplete"], allowed)):
        found, text = smoothcert(run, *options)
        verdict = text.splitlines()[-1]
        assert found == expected
        assert ("UNFINISHED" in text) == ("UNFINISHED" in verdict) == (not complete)
        assert ("all right" in verdict) == (complete and not wrong)
        assert smoothcert(run, "--json", *options)[0] == expected
        assert json.loads(smoothcert(run, "--json", *options)[1])["complete"] is complete


@pytest.mark.parametrize("any_run", ["block"], indirect=True)
def test_without_labels_an_accuracy_is_a_dash(any_run: Path) -> None:
    """A job without labels has no accuracy: a dash, and null."""
    text = smoothcert(any_run)[1]
    assert [line.split()[-3] for line in text.splitlines() if " accuracy " in line] == ["-", "-"]
    figures = json.loads(smoothcert(any_run, "--json")[1])["figures"]
    assert (figures["labels"], figures["clean_accuracy"], figures["smoothed_accuracy"]) == (None, None, None)
    assert all(entry["exact"] is not None for entry in figures["certified"])  # shares of all images


def test_a_notebook_shows_verdict_problems_and_figures(run: Path) -> None:
    """A terminal shows the verdict in a line; the folder may be a path."""
    report = verify(run)
    assert repr(report) == f"<Report on run {run.name}: 13 rows in 2 files: all right>"
    rows, (title,) = rows_and_lines(report._repr_html_())
    _, text = smoothcert(run)
    assert title == text.splitlines()[0]
    assert rows[0] == ["verdict", text.splitlines()[-1]]
    printed = [re.findall(r"[^\s│].*?(?=\s*│)", line) for line in text.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows[1:]] == printed
    (run / "_SUCCESS").unlink()
    shutil.copy(file_of(run), run / "votes" / "x.parquet")
    rows, _ = rows_and_lines(verify(run)._repr_html_())
    assert rows[:4] == [
        ["verdict", "13 rows in 2 files: UNFINISHED, 1 problem"],
        ["problem", "votes/x.parquet: belongs to no shard of this run"],
        ["notice", "unfinished: 2 of 2 shards are published"],
        ["state", "UNFINISHED"],
    ]


def test_a_run_of_masks_shows_its_certificates(any_masks_run: Path) -> None:
    """Against what the masks are made for, in the rows of `certify`; in JSON as _SUCCESS has them."""
    code, text = smoothcert(any_masks_run)
    (entry,) = json.loads((any_masks_run / "_SUCCESS").read_text())["certified"]
    run = open_run(str(any_masks_run))
    certify = printed(summary_table(summarise(run, run.job), run.job, "title", None))
    shown = [[line.split("│")[1:-1] for line in each.splitlines() if "│" in line][-3:] for each in (text, certify)]
    rows, expected = ([[cell.strip() for cell in row] for row in each] for each in shown)
    exact, published, detection = (
        "-" if entry[key] is None else f"{100 * entry[key]:.2f} %" for key in ("exact", "published", "detection")
    )
    assert code == 0
    assert rows == expected
    assert rows[1:] == [["recovery", exact, published], ["detection", "-", detection]]
    assert json.loads(smoothcert(any_masks_run, "--json")[1])["figures"]["certified"] == [entry]
