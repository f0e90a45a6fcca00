"""`smoothcert prune` lists by default, deletes with --yes, and never deletes what must stay."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from smoothcert.manifests.job import Storage
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.prune.prune import _size, plan_pruning
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.finished_runs import file_of, upload
from tests.helpers.outputs import adopt, begin_before, make_output

KEY = hashlib.sha256(b"nightly\0vit").hexdigest()[:16]
"""Of the entry vit of the suite nightly, in names of records."""


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Four complete runs of one job, the oldest first."""
    found = make_output(tmp_path, 4)
    for run, days in zip(found, (40, 30, 20, 10), strict=True):
        begin_before(run, days, datetime.now(UTC))
    return found


def prune(output: Path | str, *options: str) -> Result:
    return CliRunner().invoke(app, ["prune", str(output), *options])


def accept(output: Path, run: Path, name: str = "20260101T000000000000Z-00000000.json") -> None:
    """Make a run the baseline of an entry."""
    folder = output / "history" / "accepted"
    folder.mkdir(parents=True, exist_ok=True)
    accepted = {
        "suite": "nightly",
        "entry": "vit",
        "run_id": run.name,
        "at": "2026-01-01T00:00:00+00:00",
        "by": "accept",
    }
    (folder / f"{KEY}-{name}").write_text(json.dumps(accepted))


def left(output: Path) -> set[str]:
    return {path.name for path in output.iterdir() if (path / "run.json").exists()}


def test_nothing_is_deleted_without_yes(runs: list[Path]) -> None:
    """What would be is listed with name, age and size."""
    output, before = runs[0].parent, [*runs[0].parents[0].rglob("*")]
    result = prune(output, "--keep", "last:3")
    assert result.exit_code == 0
    size = sum(path.stat().st_size for path in runs[0].rglob("*") if path.is_file())
    first, second = result.stdout.splitlines()
    assert first == f"would delete: {runs[0].name}, small, complete, 40.0 days old, {size / 1000:.1f} kB"
    assert second == f"1 run of 4, {size / 1000:.1f} kB; add --yes to delete them"
    assert [*output.rglob("*")] == before


def test_yes_deletes_what_was_listed(runs: list[Path]) -> None:
    """And nothing else; afterwards nothing is left to delete."""
    output = runs[0].parent
    result = prune(output, "--keep", "days:25", "--yes")
    assert result.exit_code == 0
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == [f"deleted: {run.name}" for run in runs[:2]]
    assert left(output) == {run.name for run in runs[2:]}
    assert all(open_run(run).complete() for run in runs[2:])
    assert prune(output, "--keep", "days:25", "--yes").stdout == "nothing to delete\n"


def test_what_stays_for_another_reason_is_listed_with_it(runs: list[Path]) -> None:
    """A baseline, and what a kept run has taken over from."""
    output = runs[0].parent
    accept(output, runs[1], "20260101T000000000000Z-00000000.json")
    accept(output, runs[0], "20260102T000000000000Z-00000000.json")  # the baseline moved back
    adopt(runs[3], runs[2], 2)
    result = prune(output, "--keep", "last:1", "--yes")
    assert result.stdout.splitlines()[1:] == [
        f"stays: {runs[0].name}, small: it is the baseline of vit of nightly",
        f"stays: {runs[2].name}, small: run {runs[3].name}, which stays, has taken over 2 files of it",
    ]
    assert left(output) == {runs[0].name, runs[2].name, runs[3].name}


def test_a_history_that_cannot_be_read_stops_everything(runs: list[Path]) -> None:
    """A baseline might be among the runs."""
    output = runs[0].parent
    accept(output, runs[0])
    damaged = output / "history" / "accepted" / f"{KEY}-20260102T000000000000Z-00000000.json"
    damaged.write_text("{")
    result = prune(output, "--keep", "last:1", "--yes")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {damaged} is damaged (")
    assert left(output) == {run.name for run in runs}


def test_json_says_the_same(runs: list[Path]) -> None:
    """On stdout, one object."""
    output = runs[0].parent
    accept(output, runs[0])
    (runs[1] / "notes.txt").write_text("mine")
    listed = json.loads(prune(output, "--keep", "last:1", "--keep", "days:25", "--json").stdout)
    result = prune(output, "--keep", "last:1", "--keep", "days:25", "--yes", "--json")
    found = json.loads(result.stdout)
    assert (listed["deleted"], found["deleted"], listed["left"]) == (False, True, [])
    assert listed["runs"] == found["runs"]
    assert [(one["run_id"], one["delete"], one["rules"]) for one in found["runs"]] == [
        (runs[0].name, False, []),
        (runs[1].name, True, []),
        (runs[2].name, False, ["days:25"]),
        (runs[3].name, False, ["last:1", "days:25"]),
    ]
    assert found["runs"][0]["protected"] == ["it is the baseline of vit of nightly"]
    assert found["size_bytes"] == found["runs"][1]["size_bytes"]
    assert found["left"] == [str(runs[1] / "notes.txt")]
    assert (runs[1] / "notes.txt").read_text() == "mine"


def test_a_damaged_run_stays_and_is_named(runs: list[Path]) -> None:
    """The others are deleted; the exit code is 1, as for `runs`."""
    output = runs[0].parent
    (runs[0] / "run.json").write_text("{")
    (runs[1] / "_SUCCESS").unlink()
    file_of(runs[1]).write_bytes(b"cut")
    result = prune(output, "--keep", "last:1", "--yes")
    assert result.exit_code == 1
    assert f"error: {runs[0] / 'run.json'} is damaged" in result.stderr
    assert f"stays: {runs[1].name}, small: it is damaged: {file_of(runs[1])}" in result.stdout
    assert left(output) == {runs[0].name, runs[1].name, runs[3].name}


def test_an_interrupted_prune_is_finished_by_the_same_command(runs: list[Path]) -> None:
    """Also one that was interrupted in the last run of an output."""
    output = runs[0].parent
    (runs[0] / "run.json").rename(runs[0] / "pruned.json")
    (runs[0] / "_SUCCESS").unlink()
    file_of(runs[0]).unlink()
    listed = prune(output, "--keep", "last:9")
    assert f"would delete: the rest of {runs[0].name}, whose deletion was interrupted, " in listed.stdout
    assert runs[0].exists()
    assert prune(output, "--keep", "last:9", "--yes").exit_code == 0
    assert not runs[0].exists()
    for run in runs[1:]:
        (run / "run.json").rename(run / "pruned.json")
    assert prune(output, "--keep", "last:9", "--yes").exit_code == 0
    assert [*output.iterdir()] == []


def test_an_unfinished_run_is_young_or_goes(runs: list[Path]) -> None:
    """Its files were written just now."""
    (runs[0] / "_SUCCESS").unlink()
    result = prune(runs[0].parent, "--keep", "last:3")
    assert f"stays: {runs[0].name}, small: it is unfinished, and one of its files is younger" in result.stdout
    in_a_month = plan_pruning(str(runs[0].parent), ["last:3"], Storage(), datetime(2100, 1, 1, tzinfo=UTC))
    assert [one.run_id for one in in_a_month.to_delete] == [runs[0].name]


def test_runs_in_s3_are_deleted(runs: list[Path], bucket: str) -> None:
    """As in a folder."""
    urls = [upload(run, bucket) for run in runs]
    result = prune(f"s3://{bucket}/runs", "--keep", "last:1", "--yes")
    assert result.exit_code == 0
    assert AnyStore(Storage()).folders(f"s3://{bucket}/runs") == [urls[3]]
    assert open_run(urls[3]).complete()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "error: --keep: missing; say what stays, such as --keep last:30 or --keep days:90"),
        (["--keep", "30"], "error: --keep 30: is no rule; write last:N or days:N, with N from 1, such as last:30"),
    ],
)
def test_a_wrong_request_is_one_line(runs: list[Path], options: list[str], says: str) -> None:
    """Exit code 2."""
    result = prune(runs[0].parent, *options, "--yes")
    assert (result.exit_code, result.stderr.strip()) == (2, says)
    assert left(runs[0].parent) == {run.name for run in runs}


def test_an_output_without_runs_is_a_wrong_request(tmp_path: Path) -> None:
    """As for `runs`."""
    result = prune(tmp_path, "--keep", "last:1")
    assert result.exit_code == 2
    assert "holds no run but nothing" in result.stderr


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (5 * 10**15, "5,000.0 TB")],
)
def test_sizes(size_bytes: int, shown: str) -> None:
    assert _size(size_bytes) == shown
