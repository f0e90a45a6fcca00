"""Temporary folders that are removed soon after their process ends, even if it was killed.

A killed process removes nothing, so a machine that loses an actor every night would fill up with tars. Each folder
therefore holds a lock, which ends with its process in any case, and other processes remove folders without a holder.
"""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smoothcert.manifests.errors import RunError
from smoothcert.workers.storage.disk import reason_of

_PREFIX = "smoothcert-copy-"
_LOCK = ".lock"
_YOUNG_S = 60  # seconds; its process may be about to lock it


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for this process and remove it at the end.

    Raises:
        RunError: no folder can be made.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix=_PREFIX)
        lock = Path(made.name, _LOCK).open("w")  # noqa: SIM115  closed below
    except OSError as error:
        raise RunError(
            f"no temporary folder can be made: {reason_of(error)}; set TMPDIR to a folder that exists and has room"
        ) from None
    with made as folder, lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder)


def remove_abandoned() -> None:
    """Remove the folders of processes of this machine that have ended."""
    with suppress(OSError):  # there may be no temporary folder at all
        _remove_abandoned(Path(tempfile.gettempdir()))


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError), (folder / _LOCK).open() as lock:  # its process holds the lock, or another user owns it
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - folder.stat().st_mtime > _YOUNG_S:
                shutil.rmtree(folder, ignore_errors=True)
