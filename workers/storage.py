"""Where files are read from and published: a folder.

A file is published once, whole: it is written aside, synced to disk, then linked to its name, which fails
if the name exists. So a reader never sees half a file, and of two writers one learns that it came second.

Covered: folders. Not covered: s3:// (refused by name).
"""

import hashlib
import os
import time
import uuid
from pathlib import Path
from typing import Protocol

from manifests.errors import RequestError
from manifests.job import Storage
from manifests.shards import FileEntry

_ASIDE = ".incoming"
_STALE_S = 3600  # what lies aside for longer belongs to a writer that died


class Store(Protocol):
    """List, read, publish once."""

    def find(self, url: str) -> FileEntry | None: ...
    def list(self, folder: str) -> list[FileEntry]: ...
    def read(self, url: str) -> bytes: ...
    def local(self, url: str) -> Path:
        """A local file with the content of `url`."""

    def publish(self, run_url: str, name: str, data: bytes) -> bool:
        """Write RUN/NAME whole; False, and nothing written, where it exists already."""

    def sweep(self, run_url: str) -> None:
        """Remove what writers that died have left aside."""


def store_for(url: str, storage: Storage) -> Store:
    """The store that holds `url`.

    Raises:
        RequestError: a scheme that is not supported.
    """
    del storage  # only S3 has settings
    if "://" in url:
        raise RequestError(f"{url}: {url.partition('://')[0]}:// is not supported yet; use a folder")
    return FolderStore()


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FolderStore:
    """Files below the root of this machine."""

    def find(self, url: str) -> FileEntry | None:
        path = Path(url)
        return _entry(path) if path.is_file() else None

    def list(self, folder: str) -> list[FileEntry]:
        """The files directly in a folder, by name; none where it does not exist."""
        try:
            return sorted((_entry(path) for path in Path(folder).iterdir() if path.is_file()), key=lambda e: e.url)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, url: str) -> bytes:
        return Path(url).read_bytes()

    def local(self, url: str) -> Path:
        return Path(url)

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
            raise RequestError(
                f"output: cannot write {target}: {error.strerror}; make the folder writable or choose another output"
            ) from None
        finally:
            aside.unlink(missing_ok=True) if aside.parent.is_dir() else None
        return True

    def sweep(self, run_url: str) -> None:
        for path in Path(run_url, _ASIDE).glob("*"):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink(missing_ok=True)


def _entry(path: Path) -> FileEntry:
    stat = path.stat()
    return FileEntry(str(path), stat.st_size, f"{path}@{stat.st_mtime_ns}")


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
