"""Writes a file for a user of this machine. It gets its name only when it is complete.

Not covered: files of a run, which must also survive a power loss (folder_store.py).
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.disk import naming_a_full_disk


@contextmanager
def written_aside(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a path beside the file to write to; the file gets its name when the block ends without an error.

    Args:
        path: the file's own path.
        overwrite: whether it replaces a file of this name; if not, the file system must support hard links.
    Raises:
        FileExistsError: at the end, if there is such a file and it is not to be replaced.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        yield aside
        if overwrite:
            aside.replace(path)
        else:
            os.link(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink()


def check_new(path: Path, option: str) -> None:
    """Refuse a path that new_file would refuse, before long work.

    Raises:
        RequestError: it exists, or its folder does not.
    """
    try:
        if path.exists() or not path.name:
            raise RequestError(f"{option} {path}: is there already; name a new file")
        path.absolute().parent.stat()
    except OSError as error:
        raise _unwritable(path, option, error) from None


def _unwritable(path: Path, option: str, error: OSError) -> RequestError:
    return RequestError(f"{option} {path}: cannot be written ({error.strerror}); name a file of this machine")


@contextmanager
def new_file(path: Path, option: str) -> Iterator[BinaryIO]:
    """A file that a user asked for with an option of a command, open for writing. It must not exist yet.

    Raises:
        RequestError: it exists, or cannot be opened.
        RunError: the disk is full.
    """
    with naming_a_full_disk(path.absolute().parent, f"name another file with {option}"), ExitStack() as opened:
        check_new(path, option)
        try:
            aside = opened.enter_context(written_aside(path))
            file = opened.enter_context(aside.open("wb"))  # opened here: Arrow takes some names for URLs
        except OSError as error:
            raise _unwritable(path, option, error) from None
        yield file
