"""One line for each of Ray's long errors: our own error behind it, or the last line of its cause."""

import re
import textwrap

from ray.exceptions import RayActorError, RayError, RayTaskError, RuntimeEnvSetupError

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError

_MAX_CHARACTERS = 300
_RAISED = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")  # how the last line of a traceback begins


def cause_of(error: Exception) -> SmoothcertError:
    """Our own error behind one of Ray's, or what happened in one line; a RequestError if an actor cannot start."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, SmoothcertError):
        return cause
    if isinstance(cause, RuntimeEnvSetupError) or (isinstance(cause, RayActorError) and cause.actor_init_failed):
        return RequestError(f"an actor cannot start: {essence(str(cause))}")
    if isinstance(cause, RayActorError):
        return RunError(f"an actor died: {essence(str(cause))}")
    return RunError(describe(cause))


def is_ours(error: Exception) -> bool:
    """Whether our code raised it on purpose in an actor; any other error may have broken the actor's process."""
    return isinstance(error, RayTaskError) and isinstance(error.cause, SmoothcertError)


def describe(error: Exception) -> str:
    """What was raised, in one line; for an error of Ray that holds a traceback, the last line of it."""
    text = essence(str(error))
    return text if isinstance(error, RayError) and _RAISED.match(text) else f"{type(error).__name__}: {text}"


def essence(text: str) -> str:
    """The text from the last line that names an exception; without one, all but Ray's indented details of the actor."""
    lines = [line for line in text.splitlines() if line.strip()]
    raised = [number for number, line in enumerate(lines) if _RAISED.match(line)]
    kept = lines[raised[-1] :] if raised else [line for line in lines if not line.startswith("\t")]
    return textwrap.shorten(" ".join(kept), _MAX_CHARACTERS, placeholder=" ...")
