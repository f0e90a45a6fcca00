"""What a file of a store is, and what lies in a folder; whatever the store is.

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
        broken: URLs of links that lead to nothing, and of whatever else is neither.
    """

    files: list[FileEntry]
    folders: list[str]
    broken: list[str]


class Files(Protocol):
    """What finding shards needs of a store."""

    def find(self, url: str) -> FileEntry | None: ...
    def listing(self, folder: str, most: int | None = None) -> Listing | None: ...
    def read(self, url: str) -> bytes: ...
