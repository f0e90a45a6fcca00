"""A run whose tars and checkpoint lie on a web server is the run of a folder."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RunError, ShardError
from smoothcert.manifests.job import Job, load_job
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.cli import app
from tests.helpers.finished_runs import file_of, finish_job, rows_of
from tests.helpers.jobs import write_job, write_shards
from tests.helpers.web_server import WebServer


@pytest.fixture
def job(web: WebServer, tmp_path: Path) -> Path:
    """The small job, its tars and weights in a folder and on a web server."""
    write_shards(tmp_path, 2, 3)
    path = write_job(tmp_path)
    for file in (*(tmp_path / "tars").iterdir(), tmp_path / "weights.pt"):
        web.files[f"/data/{file.name}"] = file.read_bytes()
    return path


def on_web(job: Path, web: WebServer, query: str = "") -> Job:
    return load_job(
        job,
        [
            f'images.shards="{web.url}/data/{{00..01}}.tar{query}"',
            f'model.checkpoint="{web.url}/data/weights.pt{query}"',
            f"output={job.parent / 'web-runs'}",
        ],
    )


def values_of(run: Path) -> list[dict[str, object]]:
    return [row for number in range(2) for row in rows_of(file_of(run, number))]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_run_from_a_web_server_is_the_run_of_a_folder(web: WebServer, job: Path, ranges: bool) -> None:
    """The same id and rows, though connections break off. It is verified, replayed and shown from there."""
    web.ranges = ranges
    here = finish_job(load_job(job))
    for name in ("00.tar", "01.tar", "weights.pt"):
        web.happens(f"/data/{name}", "cut", 503)
    there = finish_job(on_web(job, web))
    assert there.name == here.name
    assert values_of(there) == values_of(here)
    web.happens("/data/00.tar", "cut")
    answer = CliRunner().invoke(app, ["verify", str(there), "--replay", "4"])
    assert answer.exit_code == 0, answer.output
    assert "Replayed 4 of 6 images" in answer.output
    reported = CliRunner().invoke(app, ["report", str(there), "-o", str(there.parent / "page")])
    assert reported.exit_code == 0, reported.output
    page = (there.parent / "page" / "report.html").read_text()
    assert "data:image/jpeg" in page
    assert "out of reach" not in page


def test_a_tar_that_changes_after_the_plan_is_refused(web: WebServer, job: Path) -> None:
    """Though its size stays: the ETag tells. A run that is done is compared by SHA-256."""
    plan = make_plan(on_web(job, web))
    finish_job(on_web(job, web))
    changed = bytearray(web.files["/data/00.tar"])
    changed[600] ^= 1
    web.files["/data/00.tar"] = bytes(changed)
    with pytest.raises(ShardError, match=r"00\.tar changed since the run was planned"):
        list(plan.certifier(1).certify(plan.tasks[0]))
    with pytest.raises(Exception, match=r"00\.tar has other content than when .* was made"):
        make_plan(on_web(job, web))


def test_a_server_that_fails_leaves_the_shard_to_another_attempt(web: WebServer, job: Path) -> None:
    """It is no ShardError, after which a shard is given up."""
    plan = make_plan(on_web(job, web))
    finish_job(on_web(job, web))
    web.happens("/data/00.tar", *[503] * 5)
    with pytest.raises(RunError, match=r"00\.tar: the server fails \(503") as found:
        list(plan.certifier(1).certify(plan.tasks[0]))
    assert not isinstance(found.value, ShardError)


def test_keys_of_signed_urls_are_recorded_nowhere(web: WebServer, job: Path) -> None:
    """A signed URL is as good as a password, and runs are given to others. The same command continues the run."""
    run = finish_job(on_web(job, web, "?sig=hunter2"))
    assert {one.path for one in web.asked} >= {"/data/00.tar?sig=hunter2", "/data/weights.pt?sig=hunter2"}
    for file in run.rglob("*"):
        assert file.is_dir() or b"hunter2" not in file.read_bytes()
    record = json.loads((run / "run.json").read_text())
    assert record["shards"][0]["url"] == f"{web.url}/data/00.tar"
    assert make_plan(on_web(job, web, "?sig=hunter2")).todo == ()
    answer = CliRunner().invoke(app, ["verify", str(run)])
    assert answer.exit_code == 0, answer.output
