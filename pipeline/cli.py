"""`smoothcert ...`: the program and its commands. Loads neither torch, ray nor pydantic before a command needs them.

Not covered: the arguments of each command (commands/); exit codes and errors (console/exit_codes.py); the script of a
cluster (script.py).
"""

from typing import Annotated

import typer

from smoothcert.manifests.version import __version__
from smoothcert.pipeline.commands import ask, certify, keep, prepare, study

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"smoothcert {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Prove over whole datasets that no adversarial patch can change what a classifier says."""


_COMMANDS = (  # in the order of the help
    prepare.init,
    certify.certify,
    certify.nightly,
    certify.accept,
    certify.plan,
    keep.runs,
    keep.prune,
    ask.query,
    study.attack,
    ask.compare,
    ask.sql,
    ask.report,
    study.sensitivity,
    study.amplify,
    keep.verify,
    keep.status,
    keep.repair,
    prepare.pack,
    prepare.import_checkpoint,
    prepare.finetune,
    certify.demo,
)
for _command in _COMMANDS:
    app.command()(_command)
