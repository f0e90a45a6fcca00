"""Files in folders of this machine.

A file is published in three steps: it is written under another name, synced to disk, and linked to its own name, which
fails if that name exists. So a reader never sees half a file, and the second of two writers gets an error.
"""

import errno
import itertools
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.files import FileEntry, Listing
from smoothcert.workers.storage.aside import written_aside
from smoothcert.workers.storage.disk import reason_of, remedy_for
from smoothcert.workers.storage.listed import Listed

_TEMPORARY = ".incoming"
_STALE_S = 3600  # an older file belongs to a writer that died
_ATTEMPTS = 5  # a sweeper whose clock is ahead may remove the file of a living writer


class FolderStore(Listed):
    """Files of this machine."""

    def find(self, url: str) -> FileEntry | None:
        with _explained(url):
            return _entry(Path(url))

    def listing(self, folder: str, most: int | None = None) -> Listing | None:
        with _explained(folder):
            try:
                paths = sorted(itertools.islice(Path(folder).iterdir(), most))
            except (FileNotFoundError, NotADirectoryError):
                return None
            listing = Listing([], [], [])
            for path in paths:
                if entry := _entry(path):
                    listing.files.append(entry)
                elif path.is_dir():
                    listing.folders.append(str(path))
                else:
                    listing.broken.append(str(path))
            return listing

    def pinned(self, url: str) -> str:
        return url

    def read(self, url: str) -> bytes:
        with _explained(url):
            return Path(url).read_bytes()

    def read_range(self, url: str, start: int, length: int) -> bytes:
        with _explained(url), Path(url).open("rb") as file:
            file.seek(start)
            return file.read(length)

    @contextmanager
    def local(self, url: str) -> Iterator[Path]:
        try:
            with Path(url).open("rb"):  # so that opening it by name will succeed
                pass
        except OSError as error:  # perhaps only on this machine
            raise RunError(f"{url}: {reason_of(error)}; check that this machine can read it, and try again") from None
        yield Path(url)

    def publish(self, run_url: str, name: str, data: bytes) -> bool:
        target = Path(run_url, name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(_ATTEMPTS):
                with _written(Path(run_url, _TEMPORARY), data) as temporary, suppress(FileNotFoundError):
                    os.link(temporary, target)
                    break
            else:
                raise FileNotFoundError(errno.ENOENT, "the temporary file disappears")
            _sync_folder(target.parent)
        except FileExistsError:
            if target.is_file():
                return False
            raise RequestError(f"output: {target}: a part of its path is not a folder; choose another output") from None
        except OSError as error:
            remedy = remedy_for(error, run_url, "choose another output")
            raise RequestError(f"output: cannot write {target}: {reason_of(error)}; {remedy}") from None
        return True

    def replace(self, url: str, data: bytes) -> None:
        with _explained(url), written_aside(Path(url)) as aside:
            aside.write_bytes(data)

    def move(self, url: str, to: str) -> None:
        with _explained(url):
            Path(to).parent.mkdir(parents=True, exist_ok=True)
            Path(url).rename(to)

    def remove(self, url: str) -> None:
        with _explained(url):
            Path(url).unlink(missing_ok=True)

    def remove_folder(self, url: str) -> None:
        try:
            Path(url).rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise RequestError(f"{url}: {reason_of(error)}; correct what may be written there") from None

    def sweep(self, run_url: str) -> None:
        for path in Path(run_url, _TEMPORARY).glob("*"):
            with _explained(str(path)), suppress(FileNotFoundError):  # its writer is done with it
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()


def _entry(path: Path) -> FileEntry | None:
    """None if there is no such file, or it is gone."""
    try:
        facts = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    if not stat.S_ISREG(facts.st_mode):
        return None
    return FileEntry(str(path), facts.st_size, f"{path}@{facts.st_mtime_ns}", facts.st_mtime)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn errors of the file system into one line; a RunError if another attempt may succeed."""
    try:
        yield
    except (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise RequestError(f"{url}: {reason_of(error)}; correct the path, or what may be read there") from None
    except OSError as error:
        raise RunError(f"{url}: {reason_of(error)}; check the disk or the mount, and try again") from None


@contextmanager
def _written(folder: Path, data: bytes) -> Iterator[Path]:
    """A synced temporary file with this content, removed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / uuid.uuid4().hex
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a new file name survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
