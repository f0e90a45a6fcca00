"""`smoothcert attack RUN --patch`, from the command line to table, JSON and exit code."""

import json
from pathlib import Path
from typing import Any

import pytest

from smoothcert.workers.certificates import rules
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.studies.study import studies_of
from tests.helpers import jobs
from tests.helpers.commands import check_refused, smoothcert
from tests.helpers.finished_runs import finish_job

pytest.importorskip("pyautoattack")
pytestmark = pytest.mark.usefixtures("in_process")
CHEAP = ("--places", 1, "--random-places", 1, "--steps", 4, "--queries", 4)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A complete run on fifteen images."""
    jobs.write_shards(tmp_path)
    return finish_job(load_job(jobs.write_job(tmp_path)))


def answer(*arguments: object) -> dict[str, Any]:
    done = smoothcert("attack", *arguments, "--json")
    assert done.exit_code == 0, done.output
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def rows(run: Path) -> list[dict[str, Any]]:
    (study,) = studies_of(open_run(run))
    found: list[dict[str, Any]] = study.rows().to_pylist()
    return found


def test_the_answer_counts_the_rows(run: Path) -> None:
    value = answer(run, "--patch", "8x6", *CHEAP, "--only", "all")
    found = rows(run)
    assert (value["attacked"], value["candidates"], value["complete"]) == (15, 15, True)
    fell = [row for row in found if row["fell"]]
    assert value["fell"] == len(fell) == sum(value["by_attack"].values())
    assert value["forwards_per_image"] == sum(row["forwards"] for row in found) / 15
    bracket = value["bracket"]
    right = [row for row in found if row["label"] == row["prediction"]]
    uncertified = [row for row in right if row["slack"] < 0]
    assert (bracket["right"], bracket["attacked"]) == (len(right), len(uncertified))
    assert bracket["fell"] == sum(row["fell"] for row in uncertified)
    upper = (len(right) - bracket["fell"]) / 15
    assert bracket["accuracy_under_attack"] == pytest.approx({"share": upper, "low": upper, "high": upper})
    assert bracket["certified_accuracy"] <= upper
    assert value["problems"] == []


def test_only_chooses_by_certificate(run: Path) -> None:
    """Against patches of one pixel some images are certified, and none of these falls."""
    answer(run, "--patch", "1", *CHEAP, "--only", "certified")
    found = rows(run)
    assert found
    assert all(row["slack"] >= 0 and not row["fell"] for row in found)


def test_people_read_a_table(run: Path) -> None:
    done = smoothcert("attack", run, "--patch", 8, *CHEAP, "--limit", 6)
    assert done.exit_code == 0
    for line in ("8 x 8 patches on run", "uncertified images attacked", "certified accuracy", "accuracy under attack"):
        assert line in done.stdout


def test_a_certified_image_that_falls_is_a_failure(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the rule were unsound: it certifies everything."""
    found = answer(run, "--patch", 8, *CHEAP, "--only", "all")["fell"]
    assert found
    real = rules._answer

    def generous(*arguments: Any) -> rules.Answer:
        return real(*arguments)._replace(slack=abs(real(*arguments).slack))

    monkeypatch.setattr(rules, "_answer", generous)
    done = smoothcert("attack", run, "--patch", 8, *CHEAP, "--only", "all")
    assert done.exit_code == 1
    assert f"failed: {found} certified images fell to a 8 x 8 patch (" in done.output
    assert "a certificate or the engine is wrong" in done.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--patch", "17"], "patch 17 x 17: must be 1 x 1 to 16 x 16"),
        (["--patch", "4", "--limit", "3", "--set", "name=x"], "--set name: would be another run"),
        (["--patch", "16", "--only", "certified"], "there are no certified images to choose from"),
        ([], "name one of --patch SIDE"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: list[str], line: str, run: Path) -> None:
    check_refused(smoothcert("attack", run, *arguments), line)
    assert not (run / "studies").exists()


def test_an_unfinished_run_is_refused(run: Path) -> None:
    (run / "_SUCCESS").unlink()
    check_refused(smoothcert("attack", run, "--patch", 4), "the run is not complete")
