"""What became of a run is known without Ray and without torch."""

import subprocess
import sys


def test_it_loads_neither_ray_nor_torch() -> None:
    """Whoever judges a night needs no GPU."""
    code = (
        "import sys, smoothcert.pipeline.certify.outcome as o; "
        "assert o.Outcome('complete').work == o.Work(); sys.exit(bool({'ray', 'torch'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
