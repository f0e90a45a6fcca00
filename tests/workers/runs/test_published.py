"""Published files as they are read: damage is one line with its remedy, wherever it lies."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.plan import begin, make_plan
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.verify.repair import repair
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import open_run
from tests.helpers import jobs
from tests.helpers.finished_runs import file_of, rows_of, write
from tests.helpers.tars import tar_of, write_tar


def test_no_damage_is_taken_for_votes(run: Path) -> None:
    """Of a run that is not finished, too: each page has its checksum. Damage is one line."""
    (run / "_SUCCESS").unlink()
    whole, columns, told = file_of(run).read_bytes(), ["status", "votes", "margins"], 0
    before = next(read_published(open_run(str(run)), columns)).rows
    for position in range(0, len(whole), max(1, len(whole) // 300)):
        file_of(run).write_bytes(
            whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        )
        try:
            after = next(read_published(open_run(str(run)), columns)).rows
            assert after.equals(before), f"a flipped bit at {position} was read as other votes"
        except RunError as error:
            told += 1
            assert "\n" not in str(error)
            assert "smoothcert repair" in str(error)
    assert told > 20


def test_a_complete_run_is_read_as_it_was_completed(run: Path) -> None:
    """A file may be whole and right and still not the one whose hash _SUCCESS has."""
    rows = rows_of(file_of(run))
    rows[0]["votes"] = rows[1]["votes"]
    write(file_of(run), rows, renew=False)
    for command in (["query", "--patch=2"], ["status"]):
        result = CliRunner().invoke(app, [*command, str(run)])
        assert result.exit_code == 1
        assert "SHA-256 is not the one in _SUCCESS" in result.stderr


def test_a_run_under_the_name_of_another_is_refused(run: Path, tmp_path: Path) -> None:
    """Its votes would be taken for those of the job that has the name."""
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars", tar_of(jobs.samples(0, 2)), "00.tar")
    job = load_job(jobs.write_job(tmp_path))
    shutil.copytree(run, make_plan(job).run.url)
    with pytest.raises(RequestError, match=f"holds run {run.name}, not the one of its name"):
        make_plan(job)


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


def test_runs_lists_the_others_of_a_damaged_one(run: Path) -> None:
    """And ends with 1."""
    (run.parent / "0123456789abcdef").mkdir()
    (run.parent / "0123456789abcdef" / "run.json").write_text("{")
    result = CliRunner().invoke(app, ["runs", str(run.parent)])
    assert result.exit_code == 1
    assert run.name in result.stdout
    assert "0123456789abcdef/run.json is damaged" in result.stderr


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": 3}', "\x00"])
def test_a_damaged_success_is_told(run: Path, content: str) -> None:
    """By every command that reads it."""
    (run / "_SUCCESS").write_text(content)
    for command in (["status", str(run)], ["runs", str(run.parent)]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ") and "_SUCCESS is damaged" in result.stderr


def test_a_run_is_found_with_a_slash_behind_it(run: Path) -> None:
    """As listings show folders, those of S3, too."""
    assert open_run(f"{run}/").url == str(run)


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
    assert [line.split(" is now ")[0] for line in moved] == sorted(task.file_name for task in plan.tasks)
    assert not list((run / "votes").iterdir())


def test_other_counts_under_a_limit_are_changed_data(tmp_path: Path) -> None:
    """Tars of equal names and sizes, of which the first has more images than when the run was begun."""
    (tmp_path / "tars").mkdir()
    for name, images in (("a.tar", 2), ("b.tar", 3)):
        write_tar(tmp_path / "tars", tar_of(jobs.samples(0, images)), name)
    job = jobs.write_job(tmp_path)
    plan = make_plan(load_job(job, ["images.limit=3"]))
    begin(plan)
    assert [task.limit for task in plan.tasks] == [2, 1]
    size = plan.tasks[0].shard.size
    write_tar(tmp_path / "tars", tar_of(jobs.samples(0, 3)), "a.tar")
    assert (tmp_path / "tars" / "a.tar").stat().st_size == size  # a tar is padded to 20 blocks
    with pytest.raises(RequestError, match=r"first 3 images do not lie in the same tars .*; set images\.version"):
        make_plan(load_job(job, ["images.limit=3"]))
    assert json.loads((Path(plan.run.url) / "run.json").read_text())["partial"]
