"""Starts drivers in processes of their own, injects faults, and compares the rows they leave.

Faults inside actors come from a sitecustomize.py on the driver's PYTHONPATH, which its actors inherit: the product
has no test hooks. Every driver starts a Ray of its own, and only its processes are ever touched.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import torch

from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import make_plan
from tests.helpers import jobs
from tests.helpers.house import HOUSE

SCRIPT = HOUSE / "pipeline" / "certify_all.py"
RECORD = "SMOOTHCERT_FAULTS"  # names the file to which each test appends its line of docs/reliability.md
CERTIFIER = "smoothcert.workers.certifier"
ATTEMPTS = "smoothcert.pipeline.fleet.attempts"
FLEET = "smoothcert.pipeline.fleet.fleet"
ALIKE = "smoothcert.pipeline.certify.alike"
DONE = r"^\[\d+/\d+\] (\S+): \d+ images"

_INJECTOR = '''
import importlib.abc, importlib.util, sys

CODE = {code!r}

class After(importlib.abc.MetaPathFinder):
    """Runs code in a module's namespace after its import."""

    def find_spec(self, name, path, target=None):
        if name not in CODE:
            return None
        code, spec = CODE.pop(name), importlib.util.find_spec(name)
        plain = spec.loader.exec_module
        def exec_module(module):
            plain(module)
            exec(code, vars(module))
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, After())
'''

# What happens before an actor certifies a shard; it sees `task` and `run_ids`.
_AROUND_CERTIFY = """
import os, signal, time
from pathlib import Path
_undisturbed = Certifier.certify
def _disturbed(self, task, run_ids=None):
{before}
    yield from _undisturbed(self, task, run_ids)
Certifier.certify = _disturbed
"""


def before_shards(*statements: str) -> dict[str, str]:
    """Code that each actor runs before each shard, whose `task` it sees."""
    before = "\n".join(f"    {line}" for line in statements)
    return {CERTIFIER: _AROUND_CERTIFY.format(before=before)}


def once(folder: Path, statement: str) -> str:
    """A statement that only the first actor to reach it runs."""
    return f"""
    try:
        Path({str(folder)!r}, "happened").touch(exist_ok=False)
        {statement}
    except FileExistsError:
        pass""".lstrip()


def injection(folder: Path, inject: Mapping[str, str]) -> dict[str, str]:
    """Environment in which a process, and those it starts, run code after the import of a module."""
    house = folder / f"inject-{time.monotonic_ns()}"
    house.mkdir()
    (house / "sitecustomize.py").write_text(_INJECTOR.format(code=dict(inject)))
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(house), os.environ.get("PYTHONPATH")]))}


class Driver:
    """A driver with a Ray of its own.

    Args:
        job: its job file.
        options: further arguments.
        inject: code by the module after whose import it runs, in the driver and in its actors.
        environment: added to this process's.
    """

    def __init__(
        self, job: Path, *options: str, inject: Mapping[str, str] | None = None, environment: Mapping[str, str] = {}
    ) -> None:
        self.lines: list[tuple[float, str]] = []
        self.start = time.monotonic()
        self._stopped: list[int] = []
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, job, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=self._environment(job, inject or {}) | dict(environment),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _environment(self, job: Path, inject: Mapping[str, str]) -> dict[str, str]:
        injected = injection(job.parent, inject)
        return os.environ | injected | {"RAY_ADDRESS": "local", "PYTHONUNBUFFERED": "1"}

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def when(self, pattern: str, *, after: float = 0.0) -> list[float]:
        """The moments of the lines that match."""
        return [moment for moment, line in list(self.lines) if moment >= after and re.search(pattern, line)]

    def wait_for(self, pattern: str, count: int = 1, timeout_s: float = 120) -> float:
        """The moment of the line that matches for the `count`-th time."""
        deadline = time.monotonic() + timeout_s
        while len(self.when(pattern)) < count:
            assert time.monotonic() < deadline, f"no {pattern!r} in {timeout_s:g} s:\n{self.text}"
            assert self.process.poll() is None, f"ended without {pattern!r}:\n{self.text}"
            time.sleep(0.02)
        return self.when(pattern)[count - 1]

    def wait(self, timeout_s: float = 200) -> int:
        """The exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout=10)
        return code

    def seconds_to_recover(self, fault: float) -> float:
        """Seconds from the fault to the next finished shard."""
        return self.when(DONE, after=fault)[0] - fault

    def actors(self) -> list[int]:
        """Processes of this driver's Ray that hold an actor."""
        return [pid for pid in _descendants(self.process.pid) if _title(pid).startswith("ray::CertifierActor")]

    def signal_actor(self, number: signal.Signals, pid: int | None = None) -> float:
        """Send a signal to an actor, by default to any; the moment."""
        pid = pid or self.actors()[0]
        if number == signal.SIGSTOP:
            self._stopped.append(pid)
        os.kill(pid, number)
        return time.monotonic()

    def clean_up(self) -> None:
        """End what is left of this driver and its Ray."""
        ours = [pid for pid in _descendants(self.process.pid) if self.process.poll() is None]
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in [*ours, *self._stopped]:
            if _title(pid).startswith("ray::"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


class Comparison(NamedTuple):
    """How rows compare with those of the undisturbed run."""

    images_in: int
    images_out: int
    duplicates: int
    wrong_values: int


Rows = list[dict[str, Any]]


def rows_of(output: Path) -> Rows:
    """All rows of the one run in an output folder, each with all its columns."""
    return [row for run in sorted(output.glob("*/votes")) for row in rows_of_files(run.parent)]


def rows_of_files(run: Path) -> Rows:
    """All rows of a run, each with all its columns."""
    return [row for file in sorted((run / "votes").iterdir()) for row in pq.read_table(file).to_pylist()]


def compare(rows: Rows, undisturbed: Iterable[dict[str, Any]]) -> Comparison:
    """Each row with the undisturbed run's of the same shard and key, value for value."""
    expected = {(row["shard"], row["key"]): row for row in undisturbed}
    seen = Counter((row["shard"], row["key"]) for row in rows)
    wrong = sum(row != expected.get((row["shard"], row["key"])) for row in rows)
    return Comparison(len(expected), len(rows), seen.total() - len(seen), wrong)


def undisturbed_rows(job_file: Path, output: Path, overrides: Sequence[str] = ()) -> Rows:
    """The rows of the job as one process makes them, without Ray."""
    plan = make_plan(load_job(job_file, [f"output={json.dumps(str(output))}", *overrides]))
    begin(plan)
    threads = torch.get_num_threads()
    certifier = plan.certifier(threads=1)
    for task in plan.todo:
        list(certifier.certify(task))
    torch.set_num_threads(threads)
    return rows_of(output)


def small_job_rows(folder: Path, shards: int, images: int) -> Rows:
    """The rows of an undisturbed run of the small job with so many shards."""
    jobs.write_shards(folder, shards, images)
    rows = undisturbed_rows(jobs.write_job(folder), folder / "runs")
    assert len(rows) == shards * images
    return rows


def output_of(job: Path) -> Path:
    """Where the small job's runs go."""
    return job.parent / "runs"


def record(fault: str, comparison: Comparison, exit_code: str, seconds: float | None = None) -> None:
    """Write a line for docs/reliability.md if SMOOTHCERT_FAULTS asks for it; no seconds if nothing had to recover."""
    if RECORD in os.environ:
        line = {"fault": fault, **comparison._asdict(), "exit_code": exit_code, "seconds_to_recover": seconds}
        with Path(os.environ[RECORD]).open("a") as file:
            print(json.dumps(line), file=file)
