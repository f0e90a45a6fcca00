"""Errors of disks in one line: which disk is full, what may not be written, and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.names import one_line

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's quota on it, is full."""
    return error.errno in _FULL


def is_too_large(error: OSError) -> bool:
    """Whether the file would be larger than the user's limit or the file system allows."""
    return error.errno == errno.EFBIG


def reason_of(error: OSError) -> str:
    """The text of an error; its type if it has none."""
    return error.strerror or one_line(error)


def is_forbidden(error: OSError) -> bool:
    """Whether the user may not write there."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def remedy_for(error: OSError, place: Path | str, otherwise: str) -> str:
    """What to do if a place cannot be written to.

    Args:
        error: the error of writing.
        place: the name of the place in the message.
        otherwise: a remedy for every case, such as another place.
    """
    if is_full(error):
        return f"make room in {place}, or {otherwise}"
    if is_too_large(error):
        return f"allow larger files (`ulimit -f`), or {otherwise}"
    return f"make {place} writable, or {otherwise}" if is_forbidden(error) else otherwise


@contextmanager
def naming_a_full_disk(folder: Path | str, remedy: str) -> Iterator[None]:
    """Turn the errors of a full disk and of a file that is too large into one line.

    Args:
        folder: the folder that is written to.
        remedy: what else to do.
    Raises:
        RunError: the disk is full; another attempt, or another machine, may succeed.
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
