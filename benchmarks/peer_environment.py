"""The environment of the peer: ART with the timm it works with, and all else borrowed from this environment.

ART works with timm 1.0.20 and fails on 1.0.31, which we are tested with (peers_constraints.txt). torch, numpy and all
else are those of this environment: both sides run the same kernels, and nothing large is installed.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from rich.console import Console

from smoothcert.manifests.errors import RequestError, RunError

_CONSTRAINTS = Path(__file__).with_name("peers_constraints.txt")
_PACKAGES = ("adversarial-robustness-toolbox", "timm")


def make_environment(folder: Path, log: Console) -> Path:
    """The Python of the peer's environment, made unless it is there already.

    A path file makes it find the packages of this environment after its own.

    Raises:
        RequestError: the folder holds something else.
        RunError: pip could not install the packages.
    """
    python = folder / "bin" / "python"
    mark = folder / "peers.json"  # empty until the environment is complete
    borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    wanted = json.dumps({"python": sys.version, "borrowed": borrowed, "constraints": _CONSTRAINTS.read_text()})
    if mark.exists() and mark.read_text() == wanted:
        return python
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise RequestError(
            f"--environment {folder}: holds other things; name a new folder, or one made by this benchmark"
        )
    log.print(f"Making the environment of the peer in {folder}, once")
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text("")
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(f"the environment {folder} cannot be made: {' '.join(str(error).split())[:300]}") from None
    packages = Path(_output_of(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    _install(python)
    mark.write_text(wanted)
    return python


def _install(python: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}  # it names our timm
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--constraint", _CONSTRAINTS, *_PACKAGES],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        errors = [line for line in installed.stderr.split("\n") if line.startswith("ERROR:")]
        said = errors[0] if errors else f"exit code {installed.returncode}"
        raise RunError(f"pip could not install {' and '.join(_PACKAGES)}, for which it needs its index once: {said}")


def _output_of(python: Path, *arguments: str) -> str:
    return subprocess.run([python, *arguments], capture_output=True, text=True, check=True).stdout.strip()
