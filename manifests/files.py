"""A file of a store and the listing of a folder, alike for every store.

Not covered: the stores (workers/storage/).
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True)
class FileEntry:
    """A file as a listing shows it; `fingerprint` as in Shard, `modified` in seconds since 1970."""

    url: str
    size: int
    fingerprint: str
    modified: float = 0.0


class Listing(NamedTuple):
    """What lies directly in a folder, by name.

    Attributes:
        files: its files.
        folders: URLs of its folders.
        broken: URLs of links that lead to nothing, and of all else that is neither file nor folder.
    """

    files: list[FileEntry]
    folders: list[str]
    broken: list[str]


class Files(Protocol):
    """What finding shards needs of a store."""

    def find(self, url: str) -> FileEntry | None: ...
    def listing(self, folder: str, most: int | None = None) -> Listing | None: ...
    def read(self, url: str) -> bytes: ...
    def pinned(self, url: str) -> str: ...
