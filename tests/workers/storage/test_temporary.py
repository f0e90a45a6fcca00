"""A temporary folder is removed after its process was killed, and stays while the process lives."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from smoothcert.workers.storage.temporary import remove_abandoned, temporary_folder
from tests.helpers.house import HOUSE

HOLD = """
import time
from smoothcert.workers.storage.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "00.tar").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(60)
"""


def test_the_folder_of_a_killed_process_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not earlier, and not in its first minute, when its process may not have locked it yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(HOUSE)}
    holder = subprocess.Popen([sys.executable, "-c", HOLD], env=environment, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    folder = Path(holder.stdout.readline().strip())
    long_ago = folder.stat().st_mtime - 3600
    os.utime(folder, (long_ago, long_ago))
    remove_abandoned()
    assert (folder / "00.tar").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with temporary_folder() as young:
        remove_abandoned()
        assert not folder.exists()
        assert young.exists()
    assert not list(tmp_path.iterdir())
