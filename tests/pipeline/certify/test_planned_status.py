"""`status JOB|SUITE` shows the runs that the file makes, as `status RUN` shows them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.pipeline.certify.planned_status import planned_status_of
from smoothcert.pipeline.cli import app
from smoothcert.workers.networks.described_jobs import load_job, load_suite
from tests.helpers import jobs
from tests.helpers.finished_runs import file_of, finish_job
from tests.helpers.suites import entries_of, write_suite


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of three jobs on three tars; its first entry is also the job in job.yaml."""
    jobs.write_shards(tmp_path)
    return write_suite(tmp_path)


def status(place: Path | str, *options: str) -> Result:
    return CliRunner().invoke(app, ["status", str(place), *options], env={"COLUMNS": "100"})


def status_as_json(place: Path | str) -> dict[str, Any]:
    printed = status(place, "--json")
    assert (printed.exit_code, printed.stderr) == (0, "")
    found: dict[str, Any] = json.loads(printed.stdout)
    return found


def table_of(place: Path) -> str:
    """What is printed, without how long ago it was, in a table of any width."""
    return re.sub("[─ ]+", " ", re.sub(".* ago .*", "", status(place).stdout))


def test_a_job_has_the_status_of_its_run(suite: Path) -> None:
    """As the run's folder gives it, in the table and in JSON; before it is begun, nothing is published."""
    job = suite.with_name("job.yaml")
    before = status_as_json(job)
    assert (before["published"], before["shards"], before["complete"]) == (0, 3, False)
    assert not Path(before["path"]).exists()
    run = finish_job(load_job(job))
    assert str(run) == before["path"]
    assert table_of(job) == table_of(run)
    assert status_as_json(job) == status_as_json(run)
    assert status_as_json(job)["published"] == 3


def test_a_suite_has_the_status_of_each_run(suite: Path) -> None:
    """One is finished, one has a shard, one is not begun."""
    of_entries = entries_of(suite)
    finished, begun = finish_job(of_entries["first"]), finish_job(of_entries["second"])
    (begun / "_SUCCESS").unlink()
    for number in (2, 1):
        file_of(begun, number).unlink()
    found = status_as_json(suite)
    assert (found["suite"], list(found["entries"])) == ("suite", ["first", "second", "third"])
    states = [(entry["published"], entry["complete"], entry["images"]) for entry in found["entries"].values()]
    assert states == [(3, True, 15), (1, False, 5), (0, False, 0)]
    for name, run in (("first", finished), ("second", begun)):
        alone = status_as_json(run)
        assert found["entries"][name] == alone
        assert table_of(run) in table_of(suite)
    paths = [found["entries"][name]["path"] for name in found["entries"]]
    assert [line for line in status(suite).stdout.splitlines() if line.startswith("/")] == paths


def test_an_entry_without_a_run_is_named_beside_the_others(suite: Path) -> None:
    """Exit code 2; the JSON says why, too."""
    (suite.parent / "weights2.pt").unlink()
    printed, as_json = status(suite), status(suite, "--json")
    found = json.loads(as_json.stdout)
    assert (printed.exit_code, as_json.exit_code) == (2, 2)
    (problem,) = found["entries"]["second"]["problems"]
    assert problem.startswith("model.checkpoint: ")
    assert as_json.stderr == f"failed: second: {problem}\n"
    assert printed.stdout.endswith(f"\nfailed: second: {problem}\n")
    assert set(found["entries"]) == {"first", "second", "third"}
    assert found["entries"]["third"]["shards"] == 3


def test_two_entries_that_are_one_run(suite: Path) -> None:
    """The second has no status of its own."""
    suite = write_suite(suite.parent, entries={"a": {}, "b": {"patches": [3]}})
    entries, faults = planned_status_of(load_suite(suite))
    run_id = entries["a"].run.run_id
    assert list(entries) == ["a"]
    assert faults == {"b": f"this entry is the same run as a ({run_id}); remove one of them"}


def test_a_damaged_file_hides_no_other_entry(suite: Path) -> None:
    """How far that run has come cannot be told; of a job, that is the error."""
    job = suite.with_name("job.yaml")
    run = finish_job(load_job(job))
    (run / "_SUCCESS").unlink()  # with it no file is read
    file_of(run).write_bytes(b"damaged")
    entries, faults = planned_status_of(load_suite(suite))
    assert (list(entries), list(faults)) == (["second", "third"], ["first"])
    assert "00000-00.parquet is damaged" in faults["first"]
    assert status(suite).exit_code == 2
    with pytest.raises(RunError, match=r"00000-00\.parquet is damaged"):
        planned_status_of(load_job(job))
    assert status(job).exit_code == 1


def test_what_no_entry_has_is_one_error(suite: Path) -> None:
    """The suite and a job of it say it in the same words."""
    (suite.parent / "tars").rename(suite.parent / "away")
    with pytest.raises(RequestError) as of_suite:
        planned_status_of(load_suite(suite))
    with pytest.raises(RequestError) as of_job:
        planned_status_of(load_job(suite.with_name("job.yaml")))
    assert str(of_suite.value) == str(of_job.value)
    assert "\n" not in str(of_suite.value)


def test_the_file_says_how_to_reach_its_storage(suite: Path) -> None:
    """An option would contradict it."""
    printed = status(suite, "--storage", "region=nowhere")
    assert (printed.exit_code, printed.stdout) == (2, "")
    assert printed.stderr == "error: --storage: the file says how to reach its storage; leave the option out\n"


def test_code_that_a_job_names_needs_a_word(suite: Path) -> None:
    """As for `certify`; the status runs none of it."""
    content = yaml.safe_load(suite.with_name("job.yaml").read_text())
    content["model"] |= {"architecture": "python:package.module:make", "options": {}, "code_version": "1"}
    job = suite.with_name("code.yaml")
    job.write_text(yaml.safe_dump(content))
    printed = status(job)
    assert printed.exit_code == 2
    assert "--allow-code" in printed.stderr
    allowed = status(job, "--allow-code", "--json")
    assert (allowed.exit_code, allowed.stderr) == (0, "")
    assert json.loads(allowed.stdout)["published"] == 0
