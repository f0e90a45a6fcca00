"""The command line in this process."""

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from smoothcert.pipeline.cli import app


class Done(NamedTuple):
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def smoothcert(*arguments: object) -> Done:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            app([str(argument) for argument in arguments])
        except SystemExit as end:
            return Done(int(end.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("a command ends with an exit code")


def check_refused(done: Done, line: str) -> None:
    assert done.exit_code == 2, done.output
    lines = [one for one in done.stderr.splitlines() if one.startswith("error:")]
    assert len(lines) == 1
    assert line in lines[0]
    assert "Traceback" not in done.output
