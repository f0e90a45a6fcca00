"""The script of a cluster takes the job that is named, else the one that is mounted."""

import sys
from pathlib import Path

import pytest

from smoothcert.pipeline import script
from tests.helpers import jobs


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The script's folder, and the current one."""
    beside, here = tmp_path / "home", tmp_path / "work"
    beside.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", [str(beside / "certify_all.py")])
    return beside, here


def test_the_job_beside_the_script_comes_first(places: tuple[Path, Path]) -> None:
    """Then the one in the current folder."""
    beside, here = places
    jobs.write_job(here)
    assert script._mounted_job() == here / "job.yaml"
    jobs.write_job(beside)
    assert script._mounted_job() == beside / "job.yaml"


def test_error_says_where_a_job_is_looked_for(places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line, and how to name a job."""
    beside, here = places
    with pytest.raises(SystemExit) as ended:
        script.run_script()
    assert ended.value.code == 2
    said = f"error: no job named, and no job.yaml in {beside} or {here}; name one: {sys.argv[0]} JOB.yaml\n"
    assert capsys.readouterr().err == said
