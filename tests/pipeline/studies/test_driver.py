"""A study under faults: killed and continued, two drivers, a tar that changes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.studies.study import studies_of
from tests.helpers import jobs
from tests.helpers.actors_here import actors_here
from tests.helpers.commands import check_refused, smoothcert
from tests.helpers.finished_runs import finish_job, upload

pytest.importorskip("pyautoattack")
ATTACK = ("--patch", 6, "--only", "all", "--places", 1, "--random-places", 0, "--steps", 3, "--queries", 3)


def finished_job(folder: Path) -> Path:
    """A complete run on three tars of five images; its job file."""
    folder.mkdir(exist_ok=True)
    jobs.write_shards(folder)
    job = jobs.write_job(folder)
    finish_job(load_job(job))
    return job


def rows_of(folder: Path) -> list[dict[str, object]]:
    (run,) = (folder / "runs").iterdir()
    (study,) = studies_of(open_run(str(run)))
    rows: list[dict[str, object]] = study.rows().to_pylist()
    return rows


COMMANDS = {
    "attack": ("attack", *ATTACK),
    "attack-norm": ("attack", "--norm", "linf", "--eps", "8/255", "--steps", 3, "--queries", 3),
    "sensitivity": ("sensitivity", "--limit", 15),
    "amplify": ("amplify", "--limit", 15),
}


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    "name", [name if name == "attack" else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
)
def test_a_killed_study_continues_with_equal_rows(name: str, tmp_path: Path, ray_here: object) -> None:
    """The driver is killed as soon as a part is published; the parts that are there stay."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command, *options = map(str, COMMANDS[name])
    with actors_here():
        assert smoothcert(command, finished_job(whole), *options).exit_code == 0
    arguments = [sys.executable, "-m", "smoothcert", command, str(finished_job(killed)), *options]
    driver = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (there := list((killed / "runs").glob("*/studies/*/rows/*.parquet"))):
        assert time.monotonic() < deadline
        assert driver.poll() in (None, 0)
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {path: path.stat().st_mtime_ns for path in there}
    again = subprocess.run([*arguments, "--json"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["complete"]
    assert {path: path.stat().st_mtime_ns for path in there} == before
    assert rows_of(killed) == rows_of(whole)
    assert len(rows_of(killed)) == 15


@pytest.mark.usefixtures("in_process")
def test_a_tar_with_other_images_fails_its_parts_alone(tmp_path: Path) -> None:
    """The votes are of other images; nothing is claimed about these."""
    job = finished_job(tmp_path)
    tar = tmp_path / "tars" / "01.tar"
    tar.write_bytes((tmp_path / "tars" / "02.tar").read_bytes())
    done = smoothcert("attack", job, *ATTACK)
    assert done.exit_code in (1, 2)
    assert "01.tar" in done.output


@pytest.mark.usefixtures("in_process")
def test_a_checkpoint_that_changed_is_refused(tmp_path: Path) -> None:
    job = finished_job(tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    jobs.write_weights(tmp_path / "weights.pt", fill=0.1)
    check_refused(smoothcert("attack", run, *ATTACK), "is not the checkpoint of run")
    assert job.exists()


@pytest.mark.usefixtures("in_process")
def test_an_attack_on_a_run_in_s3_lies_beside_its_votes(tmp_path: Path, bucket: str) -> None:
    """And is found again there."""
    finished_job(tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    url = upload(folder, bucket)
    first = smoothcert("attack", url, *ATTACK, "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["path"].startswith(f"{url}/studies/")
    again = smoothcert("attack", url, *ATTACK, "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert "0 of 15 images to do" in again.stderr
    (study,) = studies_of(open_run(url))
    assert len(study.rows()) == 15
