"""A disk that is full says so, and which one it is: the error of the system names neither."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smoothcert.manifests.errors import RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether the disk, or what a user may have of it, is used up."""
    return error.errno in _FULL


def is_too_large(error: OSError) -> bool:
    """Whether a file would be larger than the user, or the file system, may have one."""
    return error.errno == errno.EFBIG


def reason_of(error: OSError) -> str:
    """The words of an error, of which some have none."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def is_forbidden(error: OSError) -> bool:
    """Whether the user may not write there."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def remedy_for(error: OSError, place: Path | str, otherwise: str) -> str:
    """What to do about a place that could not be written.

    Args:
        error: of writing.
        place: how the place is called in the line.
        otherwise: what helps in every case, such as another place.
    """
    if is_full(error):
        return f"make room in {place}, or {otherwise}"
    if is_too_large(error):
        return f"allow larger files (`ulimit -f`), or {otherwise}"
    return f"make {place} writable, or {otherwise}" if is_forbidden(error) else otherwise


@contextmanager
def naming_a_full_disk(folder: Path | str, remedy: str) -> Iterator[None]:
    """Turn the error of a full disk, or of a file that is too large for it, into a line.

    Args:
        folder: where is written.
        remedy: what to do besides.
    Raises:
        RunError: the disk takes no more; another machine, or another time, may do better.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise RunError(f"{folder} is full ({reason_of(error)}); make room there, or {remedy}") from None
        if is_too_large(error):
            remedy = remedy_for(error, folder, remedy)
            raise RunError(f"{folder} takes no file of this size ({reason_of(error)}); {remedy}") from None
        raise
