"""Files of repositories of the Hugging Face Hub, read only: hf://datasets/OWNER/NAME[@REVISION]/PATH.

Without `datasets/` it is a repository of a model. The revision is a branch, a tag or a commit, `main` if it is not
given. A process uses one commit of it for all its life, of which nothing can change, so a folder is listed once.

The hub's library lists; the bytes come by http_client.py, which goes on after a cut. HF_TOKEN, or what `hf auth login`
has stored, gives access to private repositories. HF_ENDPOINT names another hub.

Not covered: weights by name, in the library's cache (hub.py).
"""

import hashlib
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.files import FileEntry, Listing
from smoothcert.manifests.names import one_line
from smoothcert.workers.extras import load
from smoothcert.workers.storage.http_client import HttpClient, Source
from smoothcert.workers.storage.http_errors import error_of
from smoothcert.workers.storage.http_store import copied
from smoothcert.workers.storage.listed import Listed
from smoothcert.workers.storage.read_only import ReadOnly

_URL = re.compile(
    r"hf://(?P<kind>datasets/|spaces/)?(?P<name>(?!datasets/|spaces/)[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256_DIGITS = 64
_ERROR_LENGTH = 160


class _Place(NamedTuple):
    """A file or folder of a repository.

    Attributes:
        kind: `datasets/`, `spaces/`, or "" for a model.
        name: OWNER/NAME.
        revision: "" if the URL has none.
        path: "" for the whole repository.
    """

    kind: str
    name: str
    revision: str
    path: str

    @property
    def url(self) -> str:
        root = f"hf://{self.kind}{self.name}" + (f"@{self.revision}" if self.revision else "")
        return f"{root}/{self.path}" if self.path else root


class HfStore(Listed, ReadOnly):
    """Files of any repository of the hub."""

    def __init__(self) -> None:
        self._client = HttpClient()
        self._commit = lru_cache(_commit_of)
        self._tree = lru_cache(_tree_of)

    def find(self, url: str) -> FileEntry | None:
        place = _place_of(url)
        if not place.path or url.endswith("/"):
            return None
        beside = self.files(place._replace(path=posixpath.dirname(place.path)).url)
        return next((entry for entry in beside if entry.url == place.url), None)

    def listing(self, folder: str, most: int | None = None) -> Listing | None:
        place = _place_of(folder)
        items = self._tree(self._pinned(place))
        if items is None:
            return None
        listing = Listing([], [], [])
        for item in items[:most]:
            url = place._replace(path=item.path).url
            if hasattr(item, "tree_id"):
                listing.folders.append(url)
            else:
                fingerprint = item.lfs.sha256 if item.lfs else item.blob_id
                listing.files.append(FileEntry(url, item.size, fingerprint))
        return listing

    def pinned(self, url: str) -> str:
        """The URL with the commit of its revision."""
        return self._pinned(_place_of(url)).url + "/" * url.endswith("/")

    def read(self, url: str) -> bytes:
        return self._client.read(self._source(url))

    def read_range(self, url: str, start: int, length: int) -> bytes:
        return self._client.read_range(self._source(url), start, length)

    @contextmanager
    def local(self, url: str) -> Iterator[Path]:
        """A temporary copy on this machine, removed at the end. Its bytes are compared with what the hub lists."""
        entry = self.find(url)
        if entry is None:
            raise RequestError(f"{url}: does not exist; correct the path")
        with copied(self._client, self._source(url)) as (path, _):
            if not _has_bytes_of(path, entry):
                raise RunError(f"{url}: what was sent is not the file that the hub lists; try again")
            yield path

    def _pinned(self, place: _Place) -> _Place:
        if _COMMIT.fullmatch(place.revision):
            return place
        return place._replace(revision=self._commit(place._replace(path="")))

    def _source(self, url: str) -> Source:
        hub = _hub(url)
        place = self._pinned(_place_of(url))
        token = hub.get_token()
        return Source(
            f"{hub.constants.ENDPOINT}/{place.kind}{place.name}/resolve/{place.revision}/{quote(place.path)}",
            url,
            {} if token is None else {"Authorization": f"Bearer {token}"},
            _access(place.name),
        )


def _commit_of(place: _Place) -> str:
    """The commit of the revision of a repository."""
    with _explained(place):
        found = _api(place).repo_info(place.name, repo_type=_type_of(place), revision=place.revision or None).sha
    if not isinstance(found, str) or not _COMMIT.fullmatch(found):
        raise RequestError(f"{place.url}: the hub does not say its commit; correct HF_ENDPOINT")
    return found


def _tree_of(place: _Place) -> list[Any] | None:
    """What lies directly in a folder of a commit; None if there is no such folder."""
    from huggingface_hub.errors import EntryNotFoundError

    with _explained(place):
        try:
            tree = _api(place).list_repo_tree(
                place.name, place.path or None, repo_type=_type_of(place), revision=place.revision
            )
            return sorted(tree, key=lambda item: str(item.path))
        except EntryNotFoundError:
            return None


def _has_bytes_of(path: Path, entry: FileEntry) -> bool:
    """Whether a file has the size that is listed, and the SHA-256, which the hub knows of large files."""
    if path.stat().st_size != entry.size:
        return False
    with path.open("rb") as file:
        return len(entry.fingerprint) != _SHA256_DIGITS or (
            hashlib.file_digest(file, "sha256").hexdigest() == entry.fingerprint
        )


@contextmanager
def _explained(place: _Place) -> Iterator[None]:
    """Turn errors of the hub's library into one line.

    Raises:
        RequestError: another attempt would not help.
        RunError: another attempt may help.
    """
    try:
        yield
    except Exception as error:  # each of its transports has errors of its own
        raise _of(error, place) from None


def _of(error: Exception, place: _Place) -> SmoothcertError:
    from huggingface_hub import errors

    reason = one_line(error, _ERROR_LENGTH)
    match error:
        case SmoothcertError():
            return error
        case errors.RepositoryNotFoundError() | errors.RevisionNotFoundError() if not isinstance(
            error, errors.GatedRepoError
        ):
            return RequestError(
                f"{place.url}: the hub has no such repository or revision that you may read; correct the URL, or set "
                "HF_TOKEN"
            )
        case errors.HfHubHTTPError() if error.response is not None:
            return error_of(error.response.status_code, place.url, _access(place.name), 1)
        case errors.HFValidationError():
            return RequestError(f"{place.url}: {reason}; correct the URL")
    return RunError(f"{place.url}: the hub cannot be reached: {reason}; check the network, and try again")


def _access(name: str) -> str:
    return (
        f"set HF_TOKEN to a token that may read {name}; if the hub's page of it has conditions, accept them with that "
        "account"
    )


def _place_of(url: str) -> _Place:
    found = _URL.fullmatch(url.rstrip("/"))
    if found is None:
        raise RequestError(
            f"{url}: is no file of the hub; write hf://datasets/OWNER/NAME/PATH, with @REVISION after NAME if needed"
        )
    return _Place(found["kind"] or "", found["name"], found["revision"] or "", found["path"] or "")


def _type_of(place: _Place) -> str:
    return place.kind.rstrip("s/") or "model"


def _api(place: _Place) -> Any:
    hub = _hub(place.url)
    return hub.HfApi(endpoint=hub.constants.ENDPOINT)


def _hub(url: str) -> Any:
    return load("huggingface_hub", url, "hub")
