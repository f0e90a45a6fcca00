"""A disk that is full says so, and which one it is: the error of the system names neither."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manifests.errors import RunError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: OSError) -> bool:
    """Whether the disk, or what a user or a file may have of it, is used up."""
    return error.errno in _FULL


def reason_of(error: OSError) -> str:
    """The words of an error, of which some have none."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


@contextmanager
def naming_a_full_disk(folder: Path | str, remedy: str) -> Iterator[None]:
    """Turn the error of a full disk into a line.

    Args:
        folder: where is written.
        remedy: what to do besides making room there.
    Raises:
        RunError: the disk is full; another machine, or another time, may do better.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise RunError(f"{folder} is full ({reason_of(error)}); make room there, or {remedy}") from None
