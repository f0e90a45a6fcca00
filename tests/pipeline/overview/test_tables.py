"""The tables of `certify`, `status` and `runs`, as they are printed."""

import re
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from smoothcert.manifests.job import Job, load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.console.looks import show
from smoothcert.pipeline.overview.runs_list import RunInShort
from smoothcert.pipeline.overview.status import FailedShard, LastDriver, Status
from smoothcert.pipeline.overview.summary import summarise
from smoothcert.pipeline.overview.tables import show_runs, status_table, summary_table
from smoothcert.workers.runs.run import Run, open_run
from tests.helpers import jobs
from tests.helpers.finished_runs import edit_json
from tests.helpers.tars import tar_of, write_tar


def printed(table: Table, width: int = 300) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        show(console, table)
    return capture.get()


def cells(text: str) -> dict[str, list[str]]:
    """The cells of each line by the first one."""
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    return {first: others for first, *others in lines}


@pytest.fixture
def job(run: Path, finished: Path) -> Job:
    return load_job(finished.parents[1] / "job.yaml")


def test_the_table_of_a_run(run: Path, job: Job) -> None:
    """Counts, errors by status, the first bad image and label, accuracies, and a line per patch."""
    found = cells(printed(summary_table(summarise(open_run(str(run)), job), job, "title", 1234.5)))
    assert found["images"] == ["13", ""]
    assert found["errors"] == ["3", "1 decode_error, 1 label_error, 1 size_error"]
    assert found["without votes"][0] == "2"
    assert found["without votes"][1].startswith("c: the file is text")
    assert found["bad labels"] == ["1", "e: .cls is no class index: 'cat' is no whole number"]
    assert found["certified accuracy"] == ["exact", "margin rule"]
    assert list(found)[-3:] == ["patch 1 x 1", "patch 2 x 2", "images/s"]
    assert found["images/s"] == ["1,234", ""] or found["images/s"] == ["1,235", ""]


def test_a_table_leaves_out_what_is_not_there(run: Path, job: Job) -> None:
    """No rate where nothing was done; no certificates where the job has no patches."""
    bare = job.model_copy(update={"patches": ()})
    found = cells(printed(summary_table(summarise(open_run(str(run)), bare), bare, "title", None)))
    assert not {"certified accuracy", "images/s", "rotated by EXIF"} & found.keys()


def status_of_part(run: Run, **changes: object) -> Status:
    unfinished = {"complete": False, "published": 1, "rows": {"ok": 6, "size_error": 1, "decode_error": 2}}
    times = {"last_published_s": time.time() - 60, "seconds_per_shard": 30.0, "last_driver": None}
    return Status(run=run, **unfinished | times | changes)  # type: ignore[arg-type]


def test_the_status_of_an_unfinished_run(run: Path) -> None:
    """Shards, images, errors by name, and how long the rest takes at the rate of the last shards."""
    driver = LastDriver("any", "node", (("failed", 1), ("published", 2)), (FailedShard("x", "shard x: why"),))
    found = cells(printed(status_table(status_of_part(open_run(str(run)), last_driver=driver))))
    assert found["run id"] == [run.name]
    assert found["state"] == ["incomplete"]
    assert (found["shards"], found["images"]) == (["1 of 2"], ["9"])
    assert found["errors"] == ["2 decode_error, 1 size_error"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, 1 min \d s ago", found["last shard"][0])
    assert (found["a shard takes"], found["left, at that rate"]) == (["30 s"], ["30 s"])
    assert (found["last driver"], found["failed"]) == (["on node: 1 failed, 2 published"], ["shard x: why"])


def test_the_status_of_a_run_without_files(run: Path) -> None:
    """No times, and no errors."""
    empty = status_of_part(open_run(str(run)), published=0, rows={}, last_published_s=None, seconds_per_shard=None)
    found = cells(printed(status_table(empty)))
    assert (found["shards"], found["images"], found["errors"]) == (["0 of 2"], ["0"], ["0"])
    assert not {"last shard", "a shard takes", "last driver"} & found.keys()


def test_a_run_without_success_says_what_to_do(run: Path) -> None:
    """Every shard is published."""
    text = printed(status_table(status_of_part(open_run(str(run)), published=2)))
    assert "every shard is published, _SUCCESS is missing: run the job's command again" in text
    assert "left, at that rate" not in text


def test_a_partial_run_says_its_limit(finished_partial: Path) -> None:
    """A reader of the status must not take it for the whole."""
    state = cells(printed(status_table(status_of_part(open_run(str(finished_partial)), complete=True))))["state"]
    assert state == ["complete PARTIAL: images.limit is 9"]


def test_a_run_is_a_line_where_it_fits(run: Path, finished_partial: Path) -> None:
    """Otherwise four lines, with the same content. Figures are those of _SUCCESS."""
    edit_json(run / "_SUCCESS", lambda success: success.update(clean_accuracy=0.5, smoothed_accuracy=None))
    for path, values in (
        (run, ["small", "weights.pt", "column 4 stride 3", "2/2", "13", "50.00 %", " -", "complete"]),
        (finished_partial, ["small", "column 4 stride 3", "9", "2/2", "complete PARTIAL"]),
    ):
        opened = open_run(str(path))
        in_short = RunInShort(opened, 2, opened.success())
        texts = {}
        for width in (300, 90):
            console = Console(width=width)
            with console.capture() as capture:
                show_runs([in_short], console)
            texts[width] = capture.get()
        assert len(texts[300].splitlines()) == 3
        first, second = texts[90].splitlines()[:2]
        begun = f"{opened.record.created}"[:16].replace("T", " ")
        state = "complete PARTIAL" if opened.partial else "complete"
        assert first == f"{path.name}  {begun}  {state}, 2/2 shards, {opened.success().rows} images"  # type: ignore[union-attr]
        assert second == "  small"
        for value in [*values, opened.checkpoint_sha256[:12]]:
            assert all(value in text for text in texts.values())


def test_names_are_printed_as_they_are(tmp_path: Path) -> None:
    """What a user wrote in brackets is no markup."""
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars", tar_of(jobs.samples(0, 2)), "00.tar")
    plan = make_plan(load_job(jobs.write_job(tmp_path, name="a[k][/b]")))
    begin(plan)
    (Path(plan.run.url) / "drivers").mkdir()
    (Path(plan.run.url) / "drivers" / "x.jsonl").write_text("{")
    for command in (["status", plan.run.url], ["runs", str(Path(plan.run.url).parent)]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0
        assert "a[k][/b]" in result.stdout
    assert "its diary cannot be read" in CliRunner().invoke(app, ["status", plan.run.url]).stdout
