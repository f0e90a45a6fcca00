"""How far a run has come, from storage alone."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.overview.status import FailedShard, LastDriver, status_of
from smoothcert.workers.runs.run import Run, open_run
from tests.helpers.counted_requests import copy_to, counted, store_in_moto
from tests.helpers.diaries import write_diary_of
from tests.helpers.finished_runs import edit_json, file_of


def write_diary(run: Path, name: str, *lines: object, modified_s: float = 1.0) -> None:
    (run / "drivers").mkdir(exist_ok=True)
    path = run / "drivers" / name
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    os.utime(path, (modified_s, modified_s))


def attempt(outcome: str, **more: str) -> dict[str, str]:
    return {"shard": "a.tar", "outcome": outcome} | more


def test_a_complete_run(run: Path) -> None:
    """All shards, and the rows of each status."""
    status = status_of(open_run(str(run)))
    assert (status.complete, status.published, status.missing) == (True, 2, 0)
    assert status.rows == {"ok": 10, "decode_error": 1, "size_error": 1, "label_error": 1}
    assert status.last_driver is None


def test_a_run_without_success_is_incomplete(run: Path) -> None:
    """Though every shard is published."""
    (run / "_SUCCESS").unlink()
    status = status_of(open_run(str(run)))
    assert (status.complete, status.missing) == (False, 0)


def test_an_unfinished_run(run: Path) -> None:
    """Only published rows count."""
    (run / "_SUCCESS").unlink()
    file_of(run, 1).unlink()
    status = status_of(open_run(str(run)))
    assert (status.complete, status.published, status.missing) == (False, 1, 1)
    assert status.rows == {"ok": 6}


def test_a_damaged_file_that_must_be_read_is_an_error(run: Path) -> None:
    """How far a run has come cannot be told from it."""
    (run / "_SUCCESS").unlink()
    file_of(run).write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"00000-00\.parquet is damaged"):
        status_of(open_run(str(run)))


@pytest.mark.parametrize("known", [(), (0,), (1,), (0, 1)])
def test_diaries_know_what_is_in_files(run: Path, known: tuple[int, ...]) -> None:
    """Files that they do not know are read, so the rows are the same."""
    expected = status_of(open_run(str(run))).rows
    (run / "_SUCCESS").unlink()
    write_diary_of(run, known)
    assert status_of(open_run(str(run))).rows == expected
    file_of(run, 1).unlink()
    assert status_of(open_run(str(run))).rows == {"ok": 6}  # what a diary knows of it does not count


def test_an_older_success_does_not_say_what_the_rows_are(run: Path) -> None:
    """Then they are read."""
    expected = status_of(open_run(str(run))).rows
    edit_json(run / "_SUCCESS", lambda success: success.pop("status"))
    assert status_of(open_run(str(run))).rows == expected


def test_no_file_of_votes_is_read_if_its_rows_are_known(run: Path) -> None:
    """Of a complete run, and of one whose drivers have ended: listings, _SUCCESS and the diaries."""
    write_diary_of(run, (0, 1))
    with store_in_moto() as store:
        copy_to(store, run, "s3://bucket/run")
        opened = Run("s3://bucket/run", open_run(str(run)).record, store)
        with counted(store) as complete:
            status_of(opened)
        store.remove("s3://bucket/run/_SUCCESS")
        with counted(store) as unfinished:
            status_of(opened)
    assert complete.requests == {"HEAD": 1, "GET": 2, "LIST": 2}  # _SUCCESS, the diary; votes/ and drivers/
    assert unfinished.requests == {"HEAD": 1, "GET": 1, "LIST": 3}  # another, because a HEAD does not say why it fails


@pytest.mark.parametrize(
    ("times_s", "last_s", "seconds_per_shard"),
    [
        ([100.0, 160.0], 160.0, 60.0),
        ([160.0, 100.0], 160.0, 60.0),  # in whatever order
        ([100.0, 100.0], 100.0, None),
        ([100.0], 100.0, None),
        ([], None, None),
    ],
)
def test_the_rate_is_that_of_publication(
    run: Path, times_s: list[float], last_s: float | None, seconds_per_shard: float | None
) -> None:
    """The average distance of the last files; one moment has no rate."""
    (run / "_SUCCESS").unlink()
    for number in reversed(range(2)):
        file = file_of(run, number)
        os.utime(file, (times_s[number],) * 2) if number < len(times_s) else file.unlink()
    status = status_of(open_run(str(run)))
    assert (status.last_published_s, status.seconds_per_shard) == (last_s, seconds_per_shard)


def test_the_diary_that_ended_last_counts(run: Path) -> None:
    """With what became of its shards, and why some failed."""
    write_diary(run, "b.jsonl", attempt("found"), {"node": "earlier"}, modified_s=1)
    attempts = [attempt("published"), attempt("failed", reason="shard x: why"), attempt("published")]
    write_diary(run, "a.jsonl", *attempts, {"node": "later", "more": 1}, modified_s=2)
    outcomes = (("failed", 1), ("published", 2))
    expected = LastDriver(str(run / "drivers" / "a.jsonl"), "later", outcomes, (FailedShard("a.tar", "shard x: why"),))
    assert status_of(open_run(str(run))).last_driver == expected


@pytest.mark.parametrize(
    "lines",
    [(), ("{",), ("[]",), (attempt("found"),), ({"shard": "a.tar"}, {"node": "node"}), ({"node": "x"}, {"node": "y"})],
)
def test_a_diary_that_cannot_be_read_is_no_damage(run: Path, lines: tuple[object, ...]) -> None:
    """The figures of the run do not depend on it."""
    write_diary(run, "a.jsonl", *lines)
    status = status_of(open_run(str(run)))
    assert status.complete
    assert status.last_driver == LastDriver(str(run / "drivers" / "a.jsonl"))


def test_a_copy_has_the_same_status(run: Path, tmp_path: Path) -> None:
    """Storage alone is read, wherever it is."""
    copy = Path(shutil.copytree(run, tmp_path / "elsewhere" / run.name))
    one, other = status_of(open_run(str(run))), status_of(open_run(str(copy)))
    assert (one.complete, one.published, one.rows) == (other.complete, other.published, other.rows)


def test_the_command_says_that_success_is_missing(run: Path) -> None:
    """Though every shard is published; what to do stands beside it."""
    (run / "_SUCCESS").unlink()
    text = CliRunner().invoke(app, ["status", str(run)]).stdout
    assert "incomplete" in text
    assert "_SUCCESS is missing: run the job's command again" in text


def test_the_command_tells_how_far_a_run_is(run: Path) -> None:
    """Shards, images and state of a finished and of an unfinished run; the path is the last line."""
    whole = CliRunner().invoke(app, ["status", str(run)]).stdout
    assert "2 of 2" in whole
    assert " complete" in whole
    assert whole.splitlines()[-1] == str(run)
    file_of(run, 1).unlink()
    (run / "_SUCCESS").unlink()
    part = CliRunner().invoke(app, ["status", str(run)]).stdout
    assert "1 of 2" in part
    assert "incomplete" in part
    assert re.search(r"images\W+6\b", part)


def test_json_says_what_the_table_says(run: Path) -> None:
    """Numbers, and times in UTC; failed shards of the last driver with their reasons."""
    assert _status_as_json(run)["last_driver"] is None
    (run / "_SUCCESS").unlink()
    for number, time_s in enumerate((1_700_000_000, 1_700_000_060)):
        os.utime(file_of(run, number), (time_s, time_s))
    write_diary(run, "a.jsonl", attempt("failed", reason="shard a.tar: why"), {"node": "node"})
    found = _status_as_json(run)
    expected = {
        "run_id": run.name,
        "job": "small",
        "path": str(run),
        "complete": False,
        "partial": False,
        "limit": None,
    }
    expected |= {"shards": 2, "published": 2, "images": 13, "seconds_per_shard": 60.0, "seconds_left": 0.0}
    expected |= {"status": {"ok": 10, "decode_error": 1, "size_error": 1, "label_error": 1}}
    expected |= {"last_published": "2023-11-14T22:14:20+00:00"}
    assert {name: found[name] for name in expected} == expected
    assert found["last_driver"] == {
        "path": str(run / "drivers" / "a.jsonl"),
        "node": "node",
        "outcomes": {"failed": 1},
        "failures": [{"shard": "a.tar", "reason": "shard a.tar: why"}],
    }


def _status_as_json(run: Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["status", str(run), "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found
