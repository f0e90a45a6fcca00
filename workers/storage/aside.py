"""Writes a file for a user of this machine. It gets its name only when it is complete.

Not covered: files of a run, which must also survive a power loss (folder_store.py); files that may be in S3
(output_file.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex


@contextmanager
def written_aside(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a path beside the file to write to; the file gets its name when the block ends without an error.

    Args:
        path: the file's own path.
        overwrite: whether it replaces a file of this name; if not, the file system must support hard links.
    Raises:
        FileExistsError: at the end, if there is such a file and it is not to be replaced.
    """
    aside = path.with_name(f".{path.name}.{token_hex(4)}.part")  # another process may write the same file
    try:
        yield aside
        if overwrite:
            aside.replace(path)
        else:
            os.link(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink()
