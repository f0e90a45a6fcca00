"""One line for what Ray reports in many: our own error behind it, or the last line of its cause."""

import re
import textwrap

from ray.exceptions import RayActorError, RayError, RayTaskError, RuntimeEnvSetupError

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError

_LONGEST = 300  # characters
_RAISED = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")  # as the last line of a traceback begins


def cause_of(error: Exception) -> SmoothcertError:
    """Our own error behind one of Ray's, or one line of what happened; a RequestError if no actor can start."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, SmoothcertError):
        return cause
    if isinstance(cause, RuntimeEnvSetupError) or (isinstance(cause, RayActorError) and cause.actor_init_failed):
        return RequestError(f"an actor cannot start: {essence(str(cause))}")
    if isinstance(cause, RayActorError):
        return RunError(f"an actor died: {essence(str(cause))}")
    return RunError(describe(cause))


def describe(error: Exception) -> str:
    """What was raised, in one line; Ray's own errors that carry a traceback give the last line of that."""
    text = essence(str(error))
    return text if isinstance(error, RayError) and _RAISED.match(text) else f"{type(error).__name__}: {text}"


def essence(text: str) -> str:
    """From the last line on that says what was raised; without one, all but Ray's indented particulars of an actor."""
    lines = [line for line in text.splitlines() if line.strip()]
    raised = [number for number, line in enumerate(lines) if _RAISED.match(line)]
    kept = lines[raised[-1] :] if raised else [line for line in lines if not line.startswith("\t")]
    return textwrap.shorten(" ".join(kept), _LONGEST, placeholder=" ...")
