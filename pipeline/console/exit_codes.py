"""How a command ends: with an exit code, and one line on stderr for each error of ours.

    0     complete
    1     something failed; the lines say what
    2     the request is wrong
    3     of `nightly`, whose 1 is a verdict: something failed, or a run did not finish
    130   interrupted; the line gives the command that continues

Not covered: which errors there are (manifests/errors.py).
"""

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TextIO

import typer

from smoothcert.manifests.errors import SmoothcertError
from smoothcert.pipeline.console.looks import console_of, say
from smoothcert.workers.extras import lacks_extra
from smoothcert.workers.storage.disk import is_full, is_too_large, reason_of, remedy_for

FAILED, UNFINISHED = 1, 3
_SECRETS = ("--notify",)
"""Options whose values are never shown."""


def ends_with_exit_code(function: Callable[..., int | None]) -> Callable[..., None]:
    """A command that turns our errors into one line on stderr, and its result into an exit code."""
    return _ending(function, FAILED)


def ends_with_verdict(function: Callable[..., int | None]) -> Callable[..., None]:
    """The same for a command that returns 1 as a verdict: whatever fails, a defect included, ends with 3."""
    return _ending(function, UNFINISHED)


def _ending(function: Callable[..., int | None], failed: int) -> Callable[..., None]:
    """The command; `failed` is the exit code if it fails."""

    @wraps(function)
    def wrapper(*args: Any, **options: Any) -> None:
        try:
            code = function(*args, **options) or 0
        except SmoothcertError as error:
            say(console_of(stderr=True), f"error: {error}")
            code = failed if error.exit_code == FAILED else error.exit_code
        except ModuleNotFoundError as error:
            if (lacking := lacks_extra(error)) is None:
                raise
            say(console_of(stderr=True), f"error: {lacking}")
            code = lacking.exit_code
        except KeyboardInterrupt:
            # A shell command must be printed as it is, neither wrapped nor escaped.
            print(f"\ninterrupted; go on with: {shlex.join(_shown(sys.argv))}", file=sys.stderr)
            code = 130
        except BrokenPipeError:
            _discard_stdout()
            code = failed
        except OSError as error:
            if (line := _full_disk(error)) is None:
                code = _defect(failed)
            else:
                say(console_of(stderr=True), f"error: {line}")
                _discard_stdout()
                code = failed
        except Exception:
            code = _defect(failed)
        raise typer.Exit(code)

    return wrapper


def _defect(failed: int) -> int:
    """A defect keeps its traceback. Python ends with 1 then, which must not be taken for a verdict."""
    if failed == FAILED:
        raise
    traceback.print_exc()
    return failed


def _shown(arguments: Sequence[str]) -> list[str]:
    """The command without secrets."""
    shown: list[str] = []
    for argument in arguments:
        option, separator, _ = argument.partition("=")
        if shown and shown[-1] in _SECRETS:
            shown.append("URL")
        else:
            shown.append(f"{option}=URL" if separator and option in _SECRETS else argument)
    return shown


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
