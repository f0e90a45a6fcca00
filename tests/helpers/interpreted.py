"""Kernels in Triton's interpreter, which runs them on the CPU."""

import os
import subprocess
import sys


def run_interpreted(script: str) -> str:
    """Run a script, which must succeed; what it prints. Triton reads TRITON_INTERPRET when kernels are defined."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
