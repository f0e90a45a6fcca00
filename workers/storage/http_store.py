"""Files of web servers, read only: https://... and http://...

A login comes from ~/.netrc (or the file that NETRC names). A web server lists no folders; all that can be found in one
is an index of tars.

Not covered: requests and their repetition (http_client.py).
"""

import base64
import netrc
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.files import FileEntry, Listing
from smoothcert.manifests.index_file import PACK_INDEX
from smoothcert.manifests.locations import name_of, split_url
from smoothcert.manifests.names import one_line
from smoothcert.workers.storage.disk import naming_a_full_disk
from smoothcert.workers.storage.http_client import Facts, HttpClient, Source
from smoothcert.workers.storage.listed import Listed
from smoothcert.workers.storage.read_only import ReadOnly
from smoothcert.workers.storage.temporary import remove_abandoned, temporary_folder

_INDEXES = ("_info.json", PACK_INDEX)


class HttpStore(Listed, ReadOnly):
    """Files of any web server."""

    def __init__(self) -> None:
        self._client = HttpClient()
        remove_abandoned()

    def find(self, url: str) -> FileEntry | None:
        facts = None if url.endswith("/") else self._client.facts(_source(url))
        if facts is None:
            return None
        if facts.is_page:
            if "." not in name_of(url):
                return None  # a folder
            raise RequestError(
                f"{url}: the server sends a web page, perhaps one to log in; use the URL of the file itself"
            )
        return entry_of(url, facts)

    def listing(self, folder: str, most: int | None = None) -> Listing:
        """The index of tars in a folder, if it has one.

        Raises:
            RequestError: it has none, or only `most` items are asked for, as for hints.
        """
        if most is None:
            for name in _INDEXES:
                with suppress(RequestError):  # many servers refuse what is not there
                    if entry := self.find(posixpath.join(folder, name)):
                        return Listing([entry], [], [])
        raise RequestError(
            f"{folder.rstrip('/')}/: a web server lists no folders, and no {' or '.join(_INDEXES)} can be read there; "
            "name each file, use a pattern such as {00..63}.tar, or name an index file"
        )

    def read(self, url: str) -> bytes:
        return self._client.read(_source(url))

    def read_range(self, url: str, start: int, length: int) -> bytes:
        return self._client.read_range(_source(url), start, length)

    @contextmanager
    def local(self, url: str) -> Iterator[Path]:
        """A temporary copy on this machine, removed at the end."""
        source = _source(url)
        said = self._client.facts(source)
        with copied(self._client, source) as (path, sent):
            if said is not None and (
                said.fingerprint not in ("", sent.fingerprint) or said.size not in (None, path.stat().st_size)
            ):
                raise RunError(
                    f"{url}: the server sends another file than it announces (it may have changed just now, or a cache "
                    "is out of date); run the command again, or copy the file to a folder or to S3, and name that"
                )
            yield path


@contextmanager
def copied(client: HttpClient, source: Source) -> Iterator[tuple[Path, Facts]]:
    """A temporary copy of a file, removed at the end, and what the server says about what it sent."""
    with temporary_folder() as folder:
        path = folder / "file"  # a name in a URL may be none that a file can have
        with (
            naming_a_full_disk(folder.parent, f"set TMPDIR to a folder with room for {source.name}"),
            path.open("w+b") as file,
        ):
            sent = client.download(source, file)
        yield path, sent


def entry_of(url: str, facts: Facts) -> FileEntry:
    """The file as a listing would show it.

    Raises:
        RequestError: the server does not say enough to notice a change.
    """
    if facts.size is None or not facts.fingerprint:
        lacks = "how large the file is" if facts.size is None else "ETag or Last-Modified"
        raise RequestError(
            f"{url}: the server does not say {lacks}, so a changed file could not be seen; copy it to a folder or to "
            "S3, and name that"
        )
    return FileEntry(url, facts.size, facts.fingerprint, facts.modified)


def _source(url: str) -> Source:
    parts = split_url(url)
    if parts.hostname is None:
        raise RequestError(f"{url}: names no server; correct the URL")
    if parts.username is not None:
        raise RequestError(f"{url}: the URL holds a user; write machine, login and password into ~/.netrc instead")
    access = f"use a URL that you may read, or write a login for {parts.hostname} into ~/.netrc"
    return Source(url, url, _login(parts.hostname), access)


def _login(host: str) -> dict[str, str]:
    """The header with user and password that ~/.netrc has for a server."""
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except OSError:
        return {}
    except netrc.NetrcParseError as error:  # its text may hold a part of a password
        where = one_line(error.msg) if error.lineno is None else f"not understood near line {error.lineno}"
        raise RequestError(f"{_netrc_file()} cannot be read: {where}; correct it") from None
    except UnicodeDecodeError:
        raise RequestError(f"{_netrc_file()} cannot be read: it is not in UTF-8; save it in UTF-8") from None
    if found is None:
        return {}
    return {"authorization": "Basic " + base64.b64encode(f"{found[0]}:{found[2]}".encode()).decode()}


def _netrc_file() -> str:
    return os.environ.get("NETRC") or "~/.netrc"
