"""A damaged run is put right by `repair` and the command that made it."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.driver import certify_all
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.verify.check import verify
from smoothcert.pipeline.verify.repair import repair
from tests.helpers import jobs
from tests.helpers.actors_here import actors_here
from tests.helpers.tars import tar_of, write_tar


@pytest.fixture(scope="module")
def finished(ray_here, tmp_path_factory):
    """A folder with a job and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    jobs.write_shards(folder)
    with actors_here():
        assert certify_all(load_job(jobs.write_job(folder))) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the finished run."""
    (source,) = (finished / "runs").iterdir()
    return Path(shutil.copytree(source, tmp_path / source.name))


def cut(run: Path) -> None:
    file = run / "votes" / "00001-01.parquet"
    file.write_bytes(file.read_bytes()[:-100])


def removed(run: Path) -> None:
    (run / "votes" / "00001-01.parquet").unlink()


def foreign(run: Path) -> None:
    shutil.copy(run / "votes" / "00000-00.parquet", run / "votes" / "00001-01.parquet")


def stranger(run: Path) -> None:
    shutil.copy(run / "votes" / "00000-00.parquet", run / "votes" / "00009-09.parquet")


def stranger_named_like_a_line(run: Path) -> None:
    shutil.copy(run / "votes" / "00000-00.parquet", run / "votes" / "00000-00.parquet row 1: is.parquet")


def wrong_success(run: Path) -> None:
    success = json.loads((run / "_SUCCESS").read_text())
    (run / "_SUCCESS").write_text(json.dumps(success | {"rows": 99}))


def no_success(run: Path) -> None:
    (run / "_SUCCESS").write_text("no JSON")


@pytest.mark.parametrize(
    "damage", [cut, removed, foreign, stranger, stranger_named_like_a_line, wrong_success, no_success]
)
def test_repair_leaves_a_run_that_can_go_on(run, damage):
    """What is wrong lies in quarantine/, with _SUCCESS; what is left is right; a second repair has nothing to do."""
    everything = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    damage(run)
    damaged = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    moved = repair(str(run))
    assert any(file == "_SUCCESS" and to.startswith("quarantine/") for file, to in moved)
    report = verify(str(run))
    assert report.problems == ()
    assert report.notices[0].startswith("unfinished")
    kept = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert sorted(kept.values()) == sorted(damaged.values())  # moved, not deleted
    assert all(everything[path] == content for path, content in kept.items() if path in everything)
    assert repair(str(run)) == []


@pytest.mark.usefixtures("in_process")
def test_the_same_command_makes_it_again(finished, tmp_path):
    """After the repair the command ends in a complete run whose rows are those of before."""
    job = finished / "job.yaml"
    (source,) = (finished / "runs").iterdir()
    copy = Path(shutil.copytree(source, tmp_path / "runs" / source.name))
    cut(copy)
    repair(str(copy))
    assert certify_all(load_job(job, [f"output={tmp_path}/runs"])) == 0
    report = verify(str(copy))
    assert (report.problems, report.notices, report.rows) == ((), (), 15)


def test_what_cannot_be_made_again_is_left_alone(run):
    """A run.json that contradicts itself is an error, and nothing moves."""
    record = json.loads((run / "run.json").read_text())
    record["votes_version"] = 99
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="cannot be made again"):
        repair(str(run))
    assert (run / "_SUCCESS").exists()


def test_repair_prints_what_it_moved(run):
    """The command line names each file, and says so when nothing is wrong."""
    assert CliRunner().invoke(app, ["repair", str(run)]).stdout == "nothing to repair\n"
    cut(run)
    lines = CliRunner().invoke(app, ["repair", str(run)]).stdout.splitlines()
    assert lines[1].startswith("votes/00001-01.parquet is now quarantine/")
    assert lines[-1] == "run the command that made the run again: it replaces these files"


def test_repair_says_in_json_what_it_moved(run):
    """One object: the run as it is now, and each file with its new place."""
    nothing = json.loads(CliRunner().invoke(app, ["repair", str(run), "--json"]).stdout)
    assert (nothing["run_id"], nothing["complete"], nothing["published"], nothing["moved"]) == (run.name, True, 3, [])
    cut(run)
    found = json.loads(CliRunner().invoke(app, ["repair", str(run), "--json"]).stdout)
    assert (found["complete"], found["shards"], found["published"]) == (False, 3, 2)
    assert [one["file"] for one in found["moved"]] == ["_SUCCESS", "votes/00001-01.parquet"]
    assert all((run / one["to"]).is_file() for one in found["moved"])


def test_an_unfinished_run_has_nothing_to_repair(run):
    """That files are missing is no damage: nothing moves, and the line says UNFINISHED."""
    (run / "_SUCCESS").unlink()
    removed(run)
    result = CliRunner().invoke(app, ["repair", str(run)])
    assert result.exit_code == 0
    assert result.stdout == "nothing to repair; the run is UNFINISHED: run the command that made it again to continue\n"


def test_names_with_spaces_can_be_repaired(tmp_path: Path) -> None:
    """A file that is cut short goes to quarantine whatever its tar is called."""
    (tmp_path / "tars").mkdir()
    for name in ("my first.tar", "x.parquet y.tar"):
        write_tar(tmp_path / "tars", tar_of(jobs.samples(0, 2)), name)
    plan = make_plan(load_job(jobs.write_job(tmp_path)))
    begin(plan)
    certifier = plan.certifier(threads=1)
    for task in plan.todo:
        list(certifier.certify(task))
    run = Path(plan.run.url)
    for file in (run / "votes").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    moved = repair(str(run))
    assert [one.file for one in moved] == sorted(task.file_name for task in plan.tasks)
    assert not list((run / "votes").iterdir())
