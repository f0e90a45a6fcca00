"""Published files as they are read: damage is one line with its remedy, wherever it lies."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manifests.errors import RequestError, RunError
from manifests.job import load_job
from pipeline.cli import app
from pipeline.plan import begin, make_plan, open_run
from pipeline.repair import repair
from pipeline.results import read_published
from tests.helpers import jobs
from tests.helpers.finished_runs import file_of
from tests.helpers.tars import tar_of, write_tar


def test_every_flipped_byte_is_read_or_told(run: Path) -> None:
    """Arrow has several words for damage, an OSError among them; all become one line."""
    whole, told = file_of(run).read_bytes(), 0
    for position in range(0, len(whole), max(1, len(whole) // 150)):
        file_of(run).write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            list(read_published(open_run(str(run)), ["status", "votes", "margins"]))
        except RunError as error:
            told += 1
            assert "\n" not in str(error)
            assert "smoothcert repair" in str(error)
    assert told > 20


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
