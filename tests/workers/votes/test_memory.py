"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

_CODE = """
import sys
from pathlib import Path
from smoothcert.workers.votes.memory import keep_freed_memory

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if sys.argv[1] == "keep":
    keep_freed_memory()
before = resident_mib()
block = b"x" * (64 << 20)
del block
print(resident_mib() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: nothing is changed there")
def test_freed_memory_stays() -> None:
    """64 MiB that are freed stay resident with it, and go back to the system without it."""
    kept, given_back = (
        float(subprocess.run([sys.executable, "-c", _CODE, word], check=True, capture_output=True, text=True).stdout)
        for word in ("keep", "not")
    )
    assert kept > 60
    assert given_back < 4
