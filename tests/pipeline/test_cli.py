"""What every command does alike: no traceback for what a machine refuses."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import jobs

# -B: with a limit on file sizes Python would leave cut bytecode behind, which breaks every later import.
COMMAND = [sys.executable, "-B", "-c", "from smoothcert.pipeline.cli import app; app()"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["query", "RUN", "--parquet", "TMP/x.parquet"], "TMP takes no file of this size (File too large)"),
        (["import-checkpoint", "TMP/weights.pt", "--output", "TMP/w.safetensors"], "check TMP for room"),
        (["demo", "--folder", "TMP/new"], "demo-00.tar cannot be written: File too large; allow larger files"),
        (["certify", "TMP/job.yaml"], "File too large; allow larger files"),
    ],
)
def test_what_commands_say_of_a_limit_of_sizes(finished: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    """One line with the folder, no traceback, and nothing of a full disk. A file may have 64 bytes."""
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


def test_without_a_temporary_folder(finished: Path) -> None:
    """Python writes a few bytes there before it takes one; where it can nowhere, one line says so."""
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
def test_output_that_goes_to_a_full_disk(finished: Path, command: str) -> None:
    """What is printed may be sent to a file: it is no result if that disk is full."""
    with Path("/dev/full").open("w") as full:
        url = finished.parent if command == "runs" else finished
        done = subprocess.run(
            [*COMMAND, command, url], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device: the file that the output goes to")
    assert done.stderr.count("\n") == 1
