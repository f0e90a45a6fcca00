"""The hashes by which a file of votes is known after it was written.

The footer of a Parquet file says where its columns lie, and in a file of votes also the checksum of their values and
what the file records about itself. So a file whose footer is unchanged is the file that was written, or damage to it.
Whoever knows the hash of what was written need not read the whole file to name it.

Not covered: who remembers the hashes (diaries.py); finding damage, for which a file is read whole (published.py,
pipeline/verify/).
"""

import hashlib
from typing import NamedTuple

_END_BYTES = 8  # the length of the footer as 4 bytes, then the letters PAR1


class FileHashes(NamedTuple):
    """Of a file of votes, in hex.

    Attributes:
        sha256: of the whole file.
        footer_sha256: of its Parquet footer.
    """

    sha256: str
    footer_sha256: str


def hashes_of(data: bytes) -> FileHashes:
    """The hashes of a whole file."""
    return FileHashes(hashlib.sha256(data).hexdigest(), footer_sha256(data))


def footer_sha256(data: bytes | bytearray) -> str:
    """SHA-256 of the footer, its length and the letters included, in hex.

    Args:
        data: the file, or enough of its end.
    """
    return hashlib.sha256(memoryview(data)[len(data) - footer_bytes(data) :]).hexdigest()


def footer_bytes(end: bytes | bytearray) -> int:
    """Length of the footer, its length and the letters included, in bytes; at most that of a file of any content.

    Args:
        end: of the file, at least its last 8 bytes.
    """
    return int.from_bytes(end[-_END_BYTES:-4], "little") + _END_BYTES
