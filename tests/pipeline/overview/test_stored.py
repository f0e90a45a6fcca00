"""What runs take in storage, and which run has taken over files from which."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.pipeline.cli import app
from smoothcert.pipeline.overview.runs_list import runs_of
from smoothcert.pipeline.overview.stored import as_json, files_below, stored_of
from smoothcert.workers.storage.folder_store import FolderStore
from tests.helpers.finished_runs import file_of
from tests.helpers.outputs import NOW, adopt, begin_before, make_output


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three complete runs."""
    return make_output(tmp_path, 3)


def test_size_age_and_adoption(runs: list[Path]) -> None:
    """As the files say it; a run that has no date has no age."""
    first, second, third = runs
    (first / "quarantine" / "20260101T000000Z").mkdir(parents=True)
    (first / "quarantine" / "20260101T000000Z" / "_SUCCESS").write_bytes(b"x" * 1000)
    for run, days in ((first, 30), (second, 1.5), (third, None)):
        begin_before(run, days)
    adopt(second, first, 2)
    adopt(third, first)
    found = {one["run_id"]: one for one in as_json(stored_of(runs_of(str(first.parent)).runs, NOW))}
    assert [found[run.name]["age_days"] for run in runs] == [30, 1.5, None]
    for run in runs:
        du = sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(run) for name in names)
        assert found[run.name]["size_bytes"] == du
    assert [found[run.name]["adopts_from"] for run in runs] == [{}, {first.name: 2}, {first.name: 1}]
    assert set(found[first.name]["adopted_by"]) == {second.name, third.name}
    assert found[second.name]["adopted_by"] == found[third.name]["adopted_by"] == []
    newest = max(path.stat().st_mtime for path in second.rglob("*") if path.is_file())
    [stored] = [one for one in stored_of(runs_of(str(first.parent)).runs, NOW) if one.run_id == second.name]
    assert stored.modified == newest


def test_the_command_shows_them_beside_the_run(runs: list[Path]) -> None:
    """A damaged file is a line, and what it would say is null."""
    (runs[0] / "_SUCCESS").unlink()
    file_of(runs[0]).write_bytes(b"cut")
    result = CliRunner().invoke(app, ["runs", str(runs[0].parent), "--json"])
    assert result.exit_code == 1
    assert f"error: {file_of(runs[0])} is damaged" in result.stderr
    found = {one["run_id"]: one for one in json.loads(result.stdout)}
    assert found[runs[0].name]["adopts_from"] is None
    assert found[runs[1].name]["adopts_from"] == {}
    for one in found.values():
        assert one["size_bytes"] > 1000
        assert 0 <= one["age_days"] < 1
        assert one["adopted_by"] == []


def test_files_below_a_folder_are_at_any_depth(tmp_path: Path) -> None:
    """None, if it does not exist."""
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    for name in ("1", "a/2", "a/b/c/3"):
        (tmp_path / name).touch()
    assert {entry.url for entry in files_below(str(tmp_path), FolderStore())} == {
        str(tmp_path / name) for name in ("1", "a/2", "a/b/c/3")
    }
    assert list(files_below(str(tmp_path / "none"), FolderStore())) == []
