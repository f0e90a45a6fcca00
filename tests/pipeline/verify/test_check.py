"""A sound run passes; what is unfinished is no problem; the checker is independent of what it checks."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.verify.check import _place_of, verify
from smoothcert.workers.runs.run import open_run
from tests.helpers.finished_runs import file_of, finish
from tests.helpers.house import HOUSE

ROOM = HOUSE / "pipeline" / "verify"
USE_OTHER_ROOMS = {"replay", "sources", "repair"}


@pytest.fixture(scope="module")
def path_of_bytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, its tars and its checkpoint in a folder whose name is not UTF-8."""
    folder = tmp_path_factory.mktemp("bytes") / os.fsdecode(b"\xff")
    folder.mkdir()
    return finish(folder)


def test_a_sound_run_is_all_right(any_run: Path) -> None:
    """Columns, rows and blocks, both edges, with and without labels, clean votes, resize and limit."""
    rows = 9 if "limit" in any_run.parts[-3] else 13
    report = verify(f"{any_run}/")
    assert (report.problems, report.notices) == ((), ())
    assert (report.run_id, report.files, report.rows) == (any_run.name, 2, rows)


def test_a_sound_run_of_masks_is_all_right(any_masks_run: Path) -> None:
    """Squares, rectangles and areas, one patch and two, with and without an early exit, clean votes and labels."""
    report = verify(any_masks_run)
    assert (report.problems, report.notices) == ((), ())
    assert (report.files, report.rows) == (2, 13)


@pytest.mark.parametrize("command", ["verify", "repair", "query"])
def test_paths_that_are_not_utf_8(path_of_bytes: Path, command: str) -> None:
    """Linux allows any bytes in a path. Python keeps them as lone surrogates, and run.json records them."""
    result = CliRunner().invoke(app, [command, str(path_of_bytes)])
    assert result.exit_code == 0, result.output
    assert {"verify": "all right", "repair": "nothing to repair", "query": "1 x 1"}[command] in result.output


def test_votes_of_paths_that_are_not_utf_8_are_replayed(path_of_bytes: Path) -> None:
    """The tars and the checkpoint are found by their names in run.json."""
    report = verify(str(path_of_bytes), replay=3, seed=1)
    assert report.problems == ()
    assert report.notices[0].startswith("replayed 3 images")


def test_an_unfinished_run_is_no_problem(run: Path) -> None:
    """What is there is checked; what is missing is a notice."""
    (run / "_SUCCESS").unlink()
    file_of(run, 0).unlink()
    report = verify(str(run))
    assert (report.problems, report.notices) == ((), ("unfinished: 1 of 2 shards are published",))
    assert (report.files, report.rows) == (1, 7)


def test_an_open_run_is_checked_as_its_path_is(run: Path) -> None:
    """It is reached as it was opened; what is no run is refused in a line."""
    assert verify(open_run(run)) == verify(run)
    opened = open_run(run, Storage(region="eu-central-1"))
    assert _place_of(opened, None) == (str(run), Storage(region="eu-central-1"))
    assert _place_of(opened, Storage())[1] == Storage()
    with pytest.raises(RequestError, match=r"^run: expected a Run, or its path or URL, not int$"):
        verify(1)  # type: ignore[arg-type]


def test_the_check_tells_how_far_it_is(run: Path) -> None:
    """Files, then images to replay: it never goes back, and ends at the whole."""
    steps: list[tuple[str, int, int]] = []
    verify(str(run), replay=5, seed=1, hear=lambda *step: steps.append(step))
    for what, total in (("files", 2), ("images replayed", 5)):
        done = [step[1] for step in steps if step[0] == what]
        assert done == sorted(done)
        assert (what, total, total) in steps


def test_it_is_independent() -> None:
    """No file of the checker imports what makes what it checks; it shares errors, settings, storage and looks."""
    shared = {"manifests.errors", "manifests.job", "workers.storage.store"}
    shared |= {
        "pipeline.console.looks",
        "pipeline.console.certified",
        "pipeline.console.bars",
        "pipeline.processes",
        "workers.extras",
        "workers.notebook",
    }
    libraries = {"numpy", "numpy.typing", "pyarrow", "pyarrow.parquet", "pydantic", "rich.table", "scipy.stats"}
    allowed = libraries | {f"smoothcert.{module}" for module in shared}
    files = {file for file in ROOM.glob("*.py") if file.stem not in USE_OTHER_ROOMS}
    assert len(files) > len(USE_OTHER_ROOMS)
    for file in files:
        tree = ast.parse(file.read_text())
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        foreign = {module for module in modules if module.partition(".")[0] not in sys.stdlib_module_names}
        assert {module for module in foreign if not module.startswith("smoothcert.pipeline.verify.")} <= allowed, file


def test_it_loads_no_torch(finished: Path) -> None:
    """The check of a run is a matter of Parquet."""
    heavy = "{'torch', 'ray', 'timm'} & set(sys.modules)"
    script = f"import sys, smoothcert; assert not smoothcert.verify({str(finished)!r}).problems; "
    result = subprocess.run(
        [sys.executable, "-c", f"{script} sys.exit(str({heavy}) if {heavy} else 0)"], cwd=HOUSE, check=False
    )
    assert result.returncode == 0
