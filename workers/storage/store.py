"""Where files are read and published: folders and S3 behind one interface. From other places files are only read.

A file is published once and whole: a reader never sees half of it, and the second of two writers learns that the file
exists.

Not covered: how folders (folder_store.py), S3 (s3_store.py) and web servers (http_store.py) do it.
"""

import hashlib
import os
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.files import FileEntry, Listing
from smoothcert.manifests.job import Storage
from smoothcert.manifests.locations import READ_ONLY, is_web
from smoothcert.workers.storage import hub
from smoothcert.workers.storage.folder_store import FolderStore


class Store(Protocol):
    """Find, list, read, publish once. URLs are paths or `s3://BUCKET/KEY`; others can only be read.

    Raises:
        RequestError: by each method, if the storage refuses or does not answer.
    """

    def find(self, url: str) -> FileEntry | None:
        """The file, or None if it does not exist."""

    def files(self, folder: str) -> list[FileEntry]:
        """The files directly in a folder, by name; none if it does not exist."""

    def folders(self, folder: str) -> list[str]:
        """The folders directly in a folder, by name."""

    def listing(self, folder: str, most: int | None = None) -> Listing | None:
        """What lies directly in a folder, at most `most` items of it; None if it does not exist."""

    def pinned(self, url: str) -> str:
        """The URL of the present version, if the store keeps versions; otherwise the same."""

    def read(self, url: str) -> bytes: ...

    def read_range(self, url: str, start: int, length: int) -> bytes:
        """Some bytes of a file; fewer if it ends before."""

    def local(self, url: str) -> AbstractContextManager[Path]:
        """A local file with the content of `url`, until the context ends."""

    def publish(self, run_url: str, name: str, data: bytes) -> bool:
        """Write RUN/NAME whole; if it exists already, write nothing and return False."""

    def replace(self, url: str, data: bytes) -> None:
        """Write a file whole, in place of one that may be there. Never for files of a run."""

    def move(self, url: str, to: str) -> None:
        """Give a file another URL in the same store."""

    def remove(self, url: str) -> None:
        """Remove a file, if it exists."""

    def remove_folder(self, url: str) -> None:
        """Remove a folder if it is empty; a store without folders of their own has nothing to remove."""

    def sweep(self, run_url: str) -> None:
        """Remove temporary files of writers that died."""


class AnyStore:
    """Sends each URL to the store that holds it; names of the hub (hub.py) can be found and read locally.

    Args:
        settings: `storage` of the job, for S3.
    """

    def __init__(self, settings: Storage) -> None:
        self.settings = settings

    def find(self, url: str) -> FileEntry | None:
        url = _fetched(url)
        return self._of(url).find(url)

    def files(self, folder: str) -> list[FileEntry]:
        return self._of(folder).files(folder)

    def folders(self, folder: str) -> list[str]:
        return self._of(folder).folders(folder)

    def listing(self, folder: str, most: int | None = None) -> Listing | None:
        return self._of(folder).listing(folder, most)

    def read(self, url: str) -> bytes:
        return self._of(url).read(url)

    def read_range(self, url: str, start: int, length: int) -> bytes:
        return self._of(url).read_range(url, start, length)

    def local(self, url: str) -> AbstractContextManager[Path]:
        url = _fetched(url)
        return self._of(url).local(url)

    def pinned(self, url: str) -> str:
        return self._of(url).pinned(url)

    def publish(self, run_url: str, name: str, data: bytes) -> bool:
        return self._of(run_url).publish(run_url, name, data)

    def replace(self, url: str, data: bytes) -> None:
        self._of(url).replace(url, data)

    def move(self, url: str, to: str) -> None:
        self._of(url).move(url, to)

    def remove(self, url: str) -> None:
        self._of(url).remove(url)

    def remove_folder(self, url: str) -> None:
        self._of(url).remove_folder(url)

    def sweep(self, run_url: str) -> None:
        self._of(run_url).sweep(run_url)

    def _of(self, url: str) -> Store:
        scheme, separator, _ = url.partition("://")
        if not separator:
            return FolderStore()
        if scheme == "s3":
            return _s3(self.settings)
        if is_web(url):
            return _http()
        if scheme == "hf":
            return _hf()
        if scheme in READ_ONLY:
            return _by_fsspec(scheme)
        others = ", ".join(f"{other}://" for other in READ_ONLY)
        raise RequestError(
            f"{url}: {scheme}:// is not supported; use a folder or s3://BUCKET/KEY (to read, also {others})"
        )


def _fetched(url: str) -> str:
    """Download a name of the hub and return the file's path; return any other URL as it is."""
    return str(hub.fetch(url)) if hub.is_hub_name(url) else url


@lru_cache
def _s3(settings: Storage) -> Store:
    from smoothcert.workers.storage.s3_store import S3Store  # boto3 takes a moment to load

    return S3Store(settings)


@lru_cache
def _http() -> Store:
    from smoothcert.workers.storage.http_store import HttpStore

    return HttpStore()


@lru_cache
def _hf() -> Store:
    from smoothcert.workers.storage.hf_store import HfStore

    return HfStore()


@lru_cache
def _by_fsspec(scheme: str) -> Store:
    from smoothcert.workers.storage.fsspec_store import store_of

    return store_of(scheme)


for _made in (_s3, _http, _hf, _by_fsspec):
    os.register_at_fork(after_in_child=_made.cache_clear)  # its sockets belong to the parent


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
