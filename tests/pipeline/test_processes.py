"""Work side by side gives the same results, and the processes end with it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline import processes
from smoothcert.pipeline.processes import THREADS_VARIABLE, count_cores, map_in_processes
from smoothcert.pipeline.verify import check
from smoothcert.pipeline.verify.files import CheckedFile, FileTask, check_file
from smoothcert.pipeline.verify.record import open_run
from tests.helpers.finished_runs import file_of, rows_of, write

MANY = 3000
"""Files that take two processes some seconds."""


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 6), ("150000 100000", 1), ("400000 100000", 4), ("50000 100000", 1), ("", 6)]
)
def test_a_container_has_no_more_cores_than_its_limit(tmp_path, monkeypatch, limit, expected):
    """Of cgroups; a core that is shared with others is not counted."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6))
    monkeypatch.setattr(processes, "_CPU_LIMIT", tmp_path / "cpu.max")
    assert count_cores() == 6
    (tmp_path / "cpu.max").write_text(limit)
    assert count_cores() == expected


def tasks_of(run: Path) -> list[FileTask]:
    opened = open_run(str(run), Storage())
    return [FileTask.of(opened, name, None) for name in opened.shards]


def begun(tasks: list[FileTask]) -> Iterator[tuple[FileTask, CheckedFile]]:
    """Checks that are under way, in two processes."""
    results = map_in_processes(check_file, tasks, 2)
    next(results)
    assert multiprocessing.active_children()
    return results


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_report_is_the_same_for_any_number_of_processes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings, figures and progress, in the order of the files."""
    for number in (0, 1):
        rows = rows_of(file_of(run, number))
        rows[1]["count"] = 99
        write(file_of(run, number), rows, renew=True)
    monkeypatch.setattr(check, "BYTES_WORTH_PROCESSES", 0)
    steps: dict[int, list[tuple[str, int, int]]] = {1: [], 2: []}
    one, two = (
        check.verify(str(run), processes=processes, hear=lambda *step, told=told: told.append(step))
        for processes, told in steps.items()
    )
    assert len(one.findings) == 2
    assert one == two
    assert steps[1] == steps[2] == [("files", 0, 2), ("files", 1, 2), ("files", 2, 2)]


def test_few_files_start_no_processes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small run is checked sooner than processes start."""
    monkeypatch.setattr(multiprocessing, "get_context", None)
    assert check.verify(str(run), processes=2).problems == ()


def test_an_error_in_a_process_is_our_own(run: Path) -> None:
    """What the storage refuses there is said as if it had been refused here."""
    tasks = [replace(task, run_url="ftp://bucket/run") for task in tasks_of(run)]
    with pytest.raises(RequestError, match="ftp:// is not supported"):
        list(map_in_processes(check_file, tasks, 2))
    assert not multiprocessing.active_children()


def test_an_interrupted_check_ends_its_processes(run: Path) -> None:
    """At once, though thousands of files are still to be checked; the environment is as before."""
    before = os.environ.get(THREADS_VARIABLE)
    results = begun(tasks_of(run) * (MANY // 2))
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()
    assert os.environ.get(THREADS_VARIABLE) == before


def test_a_killed_process_is_an_error_of_one_line(run: Path) -> None:
    """As where a machine has too little memory."""
    results = begun(tasks_of(run) * (MANY // 2))
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(RunError, match="a process ended early; give this command more memory, or"):
        list(results)


def test_processes_do_not_outlive_a_killed_parent(run: Path) -> None:
    """Nobody is left to end them: they see it themselves."""
    script = f"""
import multiprocessing, time
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.verify.files import FileTask, check_file
from smoothcert.pipeline.processes import map_in_processes
from smoothcert.pipeline.verify.record import open_run
opened = open_run({str(run)!r}, Storage())
results = map_in_processes(check_file, [FileTask.of(opened, name, None) for name in opened.shards] * {MANY}, 2)
next(results)
print(*(process.pid for process in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert pids
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, pids))


def test_an_error_of_the_items_comes_in_its_turn() -> None:
    """After the results of the items before it, as with one process."""

    def items() -> Iterator[int]:
        yield from (-1, -2, -3)
        raise RunError("no more")

    for number in (1, 2):
        results = map_in_processes(abs, items(), number)
        assert [next(results) for _ in range(3)] == [(-1, 1), (-2, 2), (-3, 3)]
        with pytest.raises(RunError, match="no more"):
            next(results)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5, 4.0])
def test_an_interrupt_from_the_terminal_is_told_once(after_s: float) -> None:
    """It reaches all processes; those that are still starting say nothing, either. A child process comes first."""
    script = """
import time
from smoothcert.pipeline.processes import map_in_processes
try:
    for _ in map_in_processes(time.sleep, [0.2] * 1000, 2):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        while len(children.read_text().split()) < 2:  # one of them tracks resources
            time.sleep(0.01)
        time.sleep(after_s)
        os.killpg(parent.pid, signal.SIGINT)
        told = parent.communicate(timeout=60)
    assert told == ("interrupted\n", "")
