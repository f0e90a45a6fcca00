"""What a source holds: names, keys and labels of its images, without their bytes.

A listing of 1.28 million images takes about 0.4 GB of memory; the images themselves are read one by one.

Not covered: the kinds of sources (folders.py, csv_file.py, parquet_files.py), class numbers (classes.py).
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """Why something in a source is not packed."""

    system = "added by an operating system"
    hidden = "hidden"
    suffix = "no image by its name"
    missing = "leads to no file"
    empty = "empty"
    content = "no image by its content"
    outside = "not in a class folder"
    repeated = "same key as another image"


class LeftOut(NamedTuple):
    """Something in the source that is not packed: its name there, why, and more about it."""

    name: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class Listing:
    """The images of a source, in its order.

    Attributes:
        names: what the user calls each: a relative path, or a row of a file.
        keys: the key of each sample; each once.
        labels: number or name of the class of each; None if it has none.
        class_names: names of the classes 0, 1, ... if the source says them.
        left_out: what the source holds besides.
        fingerprint: changes if the source changes.
        read: gives the bytes of an image by its position; None if there are none.
        what_names_classes: for messages, such as `folders`.
    """

    names: Sequence[str]
    keys: Sequence[str]
    labels: Sequence[int | str | None]
    class_names: tuple[str, ...] | None
    left_out: tuple[LeftOut, ...]
    fingerprint: str
    read: Callable[[int], bytes | None]
    what_names_classes: str


def key_of(path: str) -> str:
    """The key of a file: its path without suffix."""
    stem, dot, suffix = path.rpartition(".")
    return as_key(stem if dot and "/" not in suffix and stem else path)


def as_key(text: str) -> str:
    """A key that readers of tars take as it is: it ends at the first dot of its name, and must not begin with `__`."""
    folder, slash, base = text.lstrip("/").rpartition("/")
    return re.sub(r"^__+", "_", folder + slash + base.replace(".", "_"))


def keys_of(paths: Sequence[str]) -> Iterator[str | None]:
    """The key of each file. `1.jpg` and `1.png` get `1_jpg` and `1_png`; a path that comes again gets None."""
    keys = [key_of(path) for path in paths]
    seen, several, long_ones = set[str](), set[str](), set[str]()
    for key in keys:
        (several if key in seen else seen).add(key)
    for path, short in zip(paths, keys, strict=True):
        if short not in several:
            yield short
            continue
        long = as_key(path)
        if long in long_ones or (long in seen and long not in several):  # the same path, or a_jpg.png beside a.jpg
            yield None
        else:
            long_ones.add(long)
            yield long


def in_utf8(path: str) -> str:
    r"""A path as text: a byte that is not UTF-8 becomes `\xNN`."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")
