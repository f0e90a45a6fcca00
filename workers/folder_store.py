"""Files in folders of this machine.

A file is published by writing it aside, syncing it to disk, then linking it to its name, which fails if the name
exists. So a reader never sees half a file, and of two writers one learns that it came second.
"""

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manifests.errors import RequestError
from manifests.shards import FileEntry

_ASIDE = ".incoming"
_STALE_S = 3600  # what lies aside for longer belongs to a writer that died


class FolderStore:
    """Files below the root of this machine."""

    def find(self, url: str) -> FileEntry | None:
        path = Path(url)
        return _entry(path) if path.is_file() else None

    def files(self, folder: str) -> list[FileEntry]:
        """The files directly in a folder, by name; none where it does not exist."""
        try:
            return sorted((_entry(path) for path in Path(folder).iterdir() if path.is_file()), key=lambda e: e.url)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def folders(self, folder: str) -> list[str]:
        try:
            return sorted(str(path) for path in Path(folder).iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, url: str) -> bytes:
        return Path(url).read_bytes()

    @contextmanager
    def local(self, url: str) -> Iterator[Path]:
        yield Path(url)

    def publish(self, run_url: str, name: str, data: bytes) -> bool:
        target, aside = Path(run_url, name), Path(run_url, _ASIDE, uuid.uuid4().hex)
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(aside, target)
            _sync_folder(target.parent)
        except FileExistsError:
            if target.is_file():
                return False
            raise RequestError(f"output: {target}: something in its way is no folder; choose another output") from None
        except OSError as error:
            remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make the folder writable"
            raise RequestError(
                f"output: cannot write {target}: {error.strerror}; {remedy} or choose another output"
            ) from None
        finally:
            aside.unlink(missing_ok=True) if aside.parent.is_dir() else None
        return True

    def move(self, url: str, to: str) -> None:
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        Path(url).rename(to)

    def sweep(self, run_url: str) -> None:
        for path in Path(run_url, _ASIDE).glob("*"):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink(missing_ok=True)


def _entry(path: Path) -> FileEntry:
    stat = path.stat()
    return FileEntry(str(path), stat.st_size, f"{path}@{stat.st_mtime_ns}", stat.st_mtime)


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
