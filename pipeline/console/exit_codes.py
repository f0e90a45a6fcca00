"""How a command ends: with an exit code, and one line on stderr for each error of ours.

    0     complete
    1     something failed; the lines say what
    2     the request is wrong
    130   interrupted; the line gives the command that continues

Not covered: which errors there are (manifests/errors.py).
"""

import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from functools import wraps
from typing import Any, TextIO

import typer

from smoothcert.manifests.errors import SmoothcertError
from smoothcert.pipeline.console.looks import console_of, say
from smoothcert.workers.extras import lacks_extra
from smoothcert.workers.storage.disk import is_full, is_too_large, reason_of, remedy_for


def ends_with_exit_code(function: Callable[..., int | None]) -> Callable[..., None]:
    """A command that turns our errors into one line on stderr, and its result into an exit code."""

    @wraps(function)
    def wrapper(*args: Any, **options: Any) -> None:
        try:
            code = function(*args, **options) or 0
        except SmoothcertError as error:
            say(console_of(stderr=True), f"error: {error}")
            code = error.exit_code
        except ModuleNotFoundError as error:
            if (lacking := lacks_extra(error)) is None:
                raise
            say(console_of(stderr=True), f"error: {lacking}")
            code = lacking.exit_code
        except KeyboardInterrupt:
            # A shell command must be printed as it is, neither wrapped nor escaped.
            print(f"\ninterrupted; go on with: {shlex.join(sys.argv)}", file=sys.stderr)
            code = 130
        except BrokenPipeError:
            _discard_stdout()
            code = 1
        except OSError as error:
            if (line := _full_disk(error)) is None:
                raise
            say(console_of(stderr=True), f"error: {line}")
            _discard_stdout()
            code = 1
        raise typer.Exit(code)

    return wrapper


def _discard_stdout() -> None:
    """Drop what is not written yet: it would fail again at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.__stdout__ or sys.stdout).fileno())


def _full_disk(error: OSError) -> str | None:
    """What is full, and what to do; None for other errors."""
    otherwise = "set TMPDIR to another folder"
    if "temporary directory" in str(error):  # Python tries all of them
        return f"{reason_of(error)}; make room there, or {otherwise}"
    if not is_full(error) and not is_too_large(error):
        return None
    place = error.filename or f"the file that the output goes to, or the temporary folder {tempfile.gettempdir()}"
    return f"{reason_of(error)}: {place}; {remedy_for(error, 'that folder', otherwise)}"


def stdout_alone() -> TextIO:
    """Stdout for JSON alone; other prints go to stderr from now on. Ray prints messages about lost machines."""
    alone, sys.stdout = sys.stdout, sys.stderr
    return alone
