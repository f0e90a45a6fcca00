"""The command joins a cluster or starts Ray, in a process of its own."""

import os
import subprocess
import sys
import time

from smoothcert.pipeline.cluster.connection import _DriversCode
from tests.helpers import jobs
from tests.helpers.house import HOUSE
from tests.helpers.ports import closed_port


def test_actors_search_our_folder_first():
    """Before all others of the driver. Ray searches its list from the end."""
    code = _DriversCode()
    code._py_driver_sys_path = [sys.path[-1], "/of the current folder"]
    code._serialize()
    assert code._py_driver_sys_path == [sys.path[-1], str(HOUSE / "src")]


def certify(folder, cwd="/", **environment):
    """The command line in a process of its own, with a home of its own."""
    jobs.write_shards(folder, shards=1)
    (folder / "home").mkdir()
    own = {"HOME": str(folder / "home"), "PYTHONPATH": str(HOUSE)} | environment
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TMPDIR"))}
    command = [sys.executable, HOUSE / "pipeline" / "certify_all.py", jobs.write_job(folder)]
    return subprocess.run(
        command, env=inherited | own, cwd=cwd, capture_output=True, text=True, check=False, timeout=250
    )


def test_a_dead_cluster_is_one_line(tmp_path):
    """Without our check, Ray tries for 14 minutes, logs a line every few seconds and ends with a traceback."""
    began = time.monotonic()
    result = certify(tmp_path, RAY_ADDRESS=f"127.0.0.1:{closed_port()}")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: no Ray cluster answers at 127.0.0.1:")
    assert time.monotonic() - began < 30


def test_actors_import_the_code_of_the_driver(tmp_path):
    """Also if the current folder holds packages of the same names. No token stays in the home folder, for later
    clusters would ask for it; the state of another cluster's head is left alone.
    """
    for package in ("smoothcert", "pipeline", "workers", "manifests", "timm"):
        (tmp_path / "cwd" / package).mkdir(parents=True)
        (tmp_path / "cwd" / package / "__init__.py").write_text("raise RuntimeError('of the current folder')")
    (tmp_path / "cwd" / "random.py").write_text("raise RuntimeError('of the current folder')")
    result = certify(tmp_path, cwd=tmp_path / "cwd", RAY_ADDRESS="local", RAY_REDIS_ADDRESS="127.0.0.1:1")
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "home" / ".ray").exists()
