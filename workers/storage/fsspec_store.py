"""Files that a file system of fsspec reads, read only: gs:// (gcsfs) and az:// (adlfs).

These libraries repeat requests that fail, and take their credentials from the usual variables. Nothing is cached: what
a listing says is compared again when a file is read.
"""

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.files import FileEntry, Listing
from smoothcert.manifests.names import one_line
from smoothcert.workers.extras import load
from smoothcert.workers.storage.disk import naming_a_full_disk
from smoothcert.workers.storage.http_errors import error_of
from smoothcert.workers.storage.listed import Listed
from smoothcert.workers.storage.read_only import ReadOnly
from smoothcert.workers.storage.temporary import remove_abandoned, temporary_folder


class _Service(NamedTuple):
    """The library of a scheme, the extra that installs it, and how to give it credentials."""

    module: str
    extra: str
    access: str


SERVICES = {
    "gs": _Service(
        "gcsfs",
        "gcs",
        "let GOOGLE_APPLICATION_CREDENTIALS name a key that may read it, or run "
        "`gcloud auth application-default login`",
    ),
    "az": _Service(
        "adlfs",
        "azure",
        "set AZURE_STORAGE_ACCOUNT_NAME and, unless the container is public, AZURE_STORAGE_ACCOUNT_KEY, "
        "AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING",
    ),
}
_VERSIONS = ("etag", "ETag", "last_modified", "mtime", "updated", "created")
"""What file systems say that changes with the content, the best first."""
_NO_ACCESS = ("ClientAuthenticationError", "DefaultCredentialsError", "RefreshError", "CredentialUnavailableError")
_ERROR_LENGTH = 160


class FsspecStore(Listed, ReadOnly):
    """Files of one scheme.

    Args:
        scheme: of the URLs.
        file_system: of fsspec, without a cache.
        access: how to give it credentials, for errors.
    """

    def __init__(self, scheme: str, file_system: Any, access: str) -> None:
        self._scheme, self._files, self._access = scheme, file_system, access
        remove_abandoned()

    def find(self, url: str) -> FileEntry | None:
        if url.endswith("/"):
            return None
        with self._explained(url):
            try:
                facts = self._files.info(_path_of(url))
            except FileNotFoundError:
                return None
            return self._entry(facts) if facts["type"] == "file" else None

    def listing(self, folder: str, most: int | None = None) -> Listing | None:
        """A folder exists if it holds anything."""
        path = _path_of(folder)
        with self._explained(folder):
            try:
                items = self._files.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return None
            # Of a file, some list the file itself; some folders hold an object of their own name.
            items = [item for item in items if item["name"].strip("/") != path.strip("/")]
            items = sorted(items, key=lambda item: str(item["name"]))[:most]
            folders = [self._url_of(item) for item in items if item["type"] == "directory"]
            return (
                Listing([self._entry(item) for item in items if item["type"] == "file"], folders, []) if items else None
            )

    def read(self, url: str) -> bytes:
        with self._explained(url):
            data: bytes = self._files.cat_file(_path_of(url))
            return data

    def read_range(self, url: str, start: int, length: int) -> bytes:
        with self._explained(url):
            end = min(start + length, self._files.info(_path_of(url))["size"])  # past the end, each fails in its way
            data: bytes = self._files.cat_file(_path_of(url), start=start, end=end) if start < end else b""
            return data

    @contextmanager
    def local(self, url: str) -> Iterator[Path]:
        """A temporary copy on this machine, removed at the end."""
        with temporary_folder() as folder:
            path = folder / posixpath.basename(url)[-60:]  # keys may be longer than file names
            with self._explained(url), naming_a_full_disk(folder.parent, f"set TMPDIR to a folder with room for {url}"):
                before = self.find(url)
                self._files.get_file(_path_of(url), str(path))
                if before is None or self.find(url) != before or path.stat().st_size != before.size:
                    raise RunError(f"{url} changed while it was read; run the command again")
            yield path

    def _entry(self, facts: dict[str, Any]) -> FileEntry:
        version = next((facts[key] for key in _VERSIONS if facts.get(key)), None)
        if version is None or facts["size"] is None:
            raise RequestError(
                f"{self._url_of(facts)}: neither an ETag nor a time is known, so a changed file could not be seen; "
                "copy it to a folder or to S3, and name that"
            )
        version = version.timestamp() if isinstance(version, datetime) else version  # listings may have numbers
        return FileEntry(self._url_of(facts), facts["size"], str(version).strip('"'))

    def _url_of(self, facts: dict[str, Any]) -> str:
        return f"{self._scheme}://{facts['name'].strip('/')}"

    @contextmanager
    def _explained(self, url: str) -> Iterator[None]:
        """Turn errors of a library into one line.

        Raises:
            RequestError: another attempt would not help.
            RunError: another attempt may help.
        """
        try:
            yield
        except SmoothcertError:
            raise
        except FileNotFoundError:
            raise RequestError(f"{url}: does not exist; correct the URL") from None
        except Exception as error:  # each library has errors of its own
            raise self._of(error, url) from None

    def _of(self, error: Exception, url: str) -> SmoothcertError:
        reason = one_line(error, _ERROR_LENGTH)
        is_refused = isinstance(error, PermissionError) or reason.startswith("Forbidden")  # gcsfs, 403
        if is_refused or type(error).__name__ in _NO_ACCESS or isinstance(error, ValueError):  # adlfs: no account
            return RequestError(f"{url}: {reason}; {self._access}")
        for status in (getattr(error, "status_code", None), getattr(error, "code", None)):
            if isinstance(status, int):
                return error_of(status, url, self._access, 1)
        return RunError(f"{url}: {reason}; check the URL and the network, and try again")


def store_of(scheme: str) -> FsspecStore:
    """The store of a scheme.

    Raises:
        RequestError: its library is not installed, or finds no credentials.
    """
    service = SERVICES[scheme]
    load(service.module, f"{scheme}://", service.extra)
    import fsspec

    try:
        files = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)
    except Exception as error:  # each library has errors of its own
        raise RequestError(f"{scheme}://: {one_line(error, _ERROR_LENGTH)}; {service.access}") from None
    return FsspecStore(scheme, files, service.access)


def _path_of(url: str) -> str:
    return url.partition("://")[2].rstrip("/")
