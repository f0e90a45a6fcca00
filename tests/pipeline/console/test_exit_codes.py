"""How a command ends: exit codes, and one line for each error."""

import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.console.exit_codes import ends_with_verdict
from smoothcert.workers.networks import described_jobs
from tests.helpers import jobs

COMMAND = [sys.executable, "-B", "-c", "from smoothcert.pipeline.cli import app; app()"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        # 0: complete
        ("status RUN", 0, ""),
        ("verify RUN", 0, ""),
        ("runs RUN/..", 0, ""),
        ("repair RUN", 0, ""),
        ("query RUN", 0, ""),
        # 1: something is wrong with a run
        ("verify DAMAGED", 1, ""),
        # 2: the request is wrong
        ("", 2, ""),
        ("no-such-command", 2, "No such command"),
        ("status RUN --no-such-option", 2, "No such option"),
        ("certify", 2, "Missing argument 'JOB|SUITE'"),
        ("certify TMP/none.yaml", 2, "error: TMP/none.yaml: cannot read the job file"),
        ("plan TMP/none.yaml", 2, "error: TMP/none.yaml: cannot read the job file"),
        ("finetune TMP/none.yaml", 2, "error: TMP/none.yaml: cannot read the training file"),
        ("import-checkpoint TMP/none.pt", 2, "error: "),
        ("query RUN --patch x", 2, "error: "),
        ("query RUN --rule none", 2, "Invalid value for '--rule'"),
        ("query RUN --tolerance -1", 2, "Invalid value for '--tolerance'"),
        ("verify RUN --seed 3", 2, "error: --seed: chooses the images of --replay"),
        ("status TMP/none", 2, "error: "),
        ("status RUN --storage anonymous", 2, "error: --storage anonymous: expected"),
    ],
)
def test_exit_code_says_whether_the_run_or_the_request_is_wrong(
    arguments: str, code: int, says: str, finished: Path, run: Path, tmp_path: Path
) -> None:
    """0 complete, 1 something failed, 2 the request is wrong. The reason is on stderr."""
    next((run / "votes").iterdir()).write_bytes(b"damaged")
    for name, path in (("RUN", finished), ("DAMAGED", run), ("TMP", tmp_path)):
        arguments = re.sub(rf"\b{name}\b", str(path), arguments)
    result = CliRunner().invoke(app, arguments.split(), env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert says.replace("TMP", str(tmp_path)) in result.stderr
    assert "Traceback" not in result.output


@contextmanager
def no_stdout_lost() -> Iterator[None]:
    """A command that fails to write lets go of the stdout of this process."""
    kept = os.dup(1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def test_an_interrupt_ends_with_130_and_the_command_that_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line can be pasted into a shell, whatever the arguments are."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(described_jobs, "load_job_or_suite", interrupt)
    monkeypatch.setattr(sys, "argv", ["smoothcert", "certify", "my job.yaml"])
    result = CliRunner().invoke(app, ["certify", "my job.yaml"])
    assert result.exit_code == 130
    assert result.stderr.endswith("smoothcert certify 'my job.yaml'\n")


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only our own errors become one line."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(described_jobs, "load_job_or_suite", fail)
    assert isinstance(CliRunner().invoke(app, ["certify", "job.yaml"]).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (RunError("S3 does not answer"), 3, "error: S3 does not answer"),
        (RequestError("no such suite"), 2, "error: no such suite"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 3, "error: No space left on device"),
        (BrokenPipeError(), 3, ""),
        (ZeroDivisionError("a defect"), 3, "ZeroDivisionError: a defect"),
        (OSError(errno.EIO, "a defect"), 3, "OSError: [Errno 5] a defect"),
        (KeyboardInterrupt(), 130, "interrupted; go on with: "),
    ],
)
def test_1_is_a_verdict_alone_where_it_is_one(error: BaseException, code: int, says: str) -> None:
    """Of nightly: 1 says that a gate tripped. Whatever fails is 3, even a defect, whose traceback stays."""

    def fail() -> int:
        raise error

    command = typer.Typer()
    command.command()(ends_with_verdict(fail))
    with no_stdout_lost():
        result = CliRunner().invoke(command, [])
    assert result.exit_code == code
    assert says in result.stderr
    command = typer.Typer()
    command.command()(ends_with_verdict(lambda: 1))
    assert CliRunner().invoke(command, []).exit_code == 1


@pytest.mark.parametrize("written", [["--notify", "https://host/SECRET"], ["--notify=https://host/SECRET"]])
def test_an_interrupt_shows_no_webhook(monkeypatch: pytest.MonkeyPatch, written: list[str]) -> None:
    """Its URL is a secret; what is printed may be in a log that many read."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(described_jobs, "load_suite", interrupt, raising=False)
    monkeypatch.setattr(sys, "argv", ["smoothcert", "nightly", "suite.yaml", *written, "--json"])
    result = CliRunner().invoke(app, ["nightly", "suite.yaml", *written])
    assert result.exit_code == 130
    assert "SECRET" not in result.output
    assert "smoothcert nightly suite.yaml --notify" in result.stderr
    assert result.stderr.endswith("URL --json\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["query", "RUN", "--parquet", "TMP/x.parquet"], "TMP takes no file of this size (File too large)"),
        (["import-checkpoint", "TMP/weights.pt", "--output", "TMP/w.safetensors"], "check TMP for room"),
        (["demo", "--folder", "TMP/new"], "demo-00.tar cannot be written: File too large; allow larger files"),
        (["certify", "TMP/job.yaml"], "File too large; allow larger files"),
    ],
)
def test_error_names_the_folder_that_takes_no_large_file(
    finished: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    """One line without a traceback, which does not ask for room. A file may have 64 bytes."""
    jobs.write_shards(tmp_path, 1)
    jobs.write_job(tmp_path)
    filled = [text.replace("RUN", str(finished)).replace("TMP", str(tmp_path)) for text in arguments]
    done = subprocess.run(
        [*COMMAND, *filled],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)),
    )
    assert done.returncode in (1, 2)
    assert says.replace("TMP", str(tmp_path)) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "make room" not in done.stderr
    assert not list(tmp_path.rglob("*.part"))


def test_error_says_that_there_is_no_temporary_folder(finished: Path) -> None:
    """Python writes a few bytes to each candidate before it takes one. If none works, one line says so."""
    done = subprocess.run(
        [*COMMAND, "verify", finished, "--replay", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: No usable temporary directory")
    assert "set TMPDIR" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["runs", "status", "verify"])
def test_output_to_a_full_disk_is_an_error(finished: Path, command: str) -> None:
    """The output may go to a file. If that disk is full, there is no result."""
    with Path("/dev/full").open("w") as full:
        url = finished.parent if command == "runs" else finished
        done = subprocess.run(
            [*COMMAND, command, url], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device: the file that the output goes to")
    assert done.stderr.count("\n") == 1
