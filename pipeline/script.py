"""What `python pipeline/certify_all.py` takes: the arguments of `smoothcert certify`, where JOB is optional.

Not covered: finding the package where nothing is installed (certify_all.py).
"""

import sys
from pathlib import Path

import typer

from smoothcert.pipeline.commands.certify import certify
from smoothcert.pipeline.console.looks import console_of, say


def run_script() -> None:
    """Run the certify command; without JOB, the job that a cluster mounts."""
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    script.command(epilog="Without JOB: the job.yaml beside this file, or in the current folder.")(certify)
    script(default_map={"job": _mounted_job})


def _mounted_job() -> Path:
    """job.yaml beside the script, where `ray submit` and ray_cluster.yaml put both, or in the current folder."""
    folders = dict.fromkeys([Path(sys.argv[0]).absolute().parent, Path.cwd()])
    for folder in folders:
        if (folder / "job.yaml").is_file():
            return folder / "job.yaml"
    looked = " or ".join(map(str, folders))
    line = f"error: no job named, and no job.yaml in {looked}; name one: {sys.argv[0]} JOB.yaml"
    say(console_of(stderr=True), line)
    raise typer.Exit(2)
