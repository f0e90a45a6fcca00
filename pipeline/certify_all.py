"""The script for `ray submit` and `ray job submit`: `smoothcert certify` where smoothcert is not installed.

python pipeline/certify_all.py [JOB]        as `smoothcert certify JOB`; without JOB, a job.yaml that lies there
"""

import sys
from pathlib import Path


def _add_package_to_path() -> None:
    """Find smoothcert in `src`, beside the folder of this file or, as `ray submit` copies it, beside the file itself.

    The folder of the script itself leaves the path, because its rooms have names such as `query`.
    """
    here = Path(__file__).resolve().parent
    house = here if (here / "src" / "smoothcert").is_dir() else here.parent
    sys.path = [str(house / "src"), *(place for place in sys.path if Path(place).resolve() != here)]


if __name__ == "__main__":
    _add_package_to_path()
    from smoothcert.pipeline.script import run_script

    run_script()
