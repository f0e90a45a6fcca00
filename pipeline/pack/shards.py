"""Writes images and labels as tars, byte by byte the same for the same images.

webdataset's TarWriter writes them: KEY.cls, then KEY.jpg, with fixed owner, mode and time. The bytes of an image are
copied as they are. Its suffix follows from its first bytes, not from its name: readers rely on it.
"""

import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.console.bars import OnProgress
from smoothcert.pipeline.pack.classes import NO_LABEL
from smoothcert.pipeline.pack.listing import LeftOut, Listing, Reason
from smoothcert.workers.storage.disk import reason_of
from smoothcert.workers.storage.file_kinds import HEAD_BYTES, kind_of

_SUFFIXES = [  # what Pillow decodes by itself (workers/tars/images.py)
    (rb"\xff\xd8\xff", "jpg"),
    (rb"\x89PNG\r\n\x1a\n", "png"),
    (rb"RIFF.{4}WEBP", "webp"),
    (rb"GIF8[79]a", "gif"),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", "bmp"),
    (rb"II\*\x00|MM\x00\*", "tif"),
    (rb"P[1-6]\s", "ppm"),
    (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "jp2"),
]


class Limits(NamedTuple):
    """The most that a tar holds: images, and bytes of the whole file; None for any number."""

    images: int | None
    bytes: int | None


class Written(NamedTuple):
    """A tar that was written.

    Attributes:
        images: samples in it.
        position: the first place of the order that is not done with.
        of_class: images by class number; NO_LABEL for those without label.
        suffixes: of the images.
        left_out: images that cannot be used.
    """

    images: int
    position: int
    of_class: Counter[int]
    suffixes: set[str]
    left_out: list[LeftOut]


def suffix_of(image: bytes) -> str | None:
    """The suffix of an image file, by its first bytes; None if it is no image that a job can read."""
    start = image[:HEAD_BYTES]
    return next((suffix for pattern, suffix in _SUFFIXES if re.match(pattern, start, re.DOTALL)), None)


def write_tar(
    file: BinaryIO,
    listing: Listing,
    classes: NDArray[np.int32],
    order: Sequence[int],
    position: int,
    limits: Limits,
    hear: OnProgress,
) -> Written:
    """Write the next images of an order to a tar until it is full.

    Args:
        file: the tar.
        listing: the images.
        classes: the class number of each.
        order: positions in the listing.
        position: place in the order at which to begin.
        limits: when the tar is full. A tar holds at least one image, however large.
        hear: is told how many images are done.
    Raises:
        RunError: an image that was listed cannot be read.
    """
    from webdataset import TarWriter  # takes seconds: it loads torch

    images, of_class, suffixes, left_out = 0, Counter[int](), set[str](), list[LeftOut]()
    with TarWriter(file, mtime=0, encoder=False) as tar:
        while position < len(order) and images != limits.images:
            number = order[position]
            image = _read(listing, number)
            suffix = suffix_of(image) if image else None
            if image is None or suffix is None:
                left_out.append(_unusable(listing.names[number], image))
            else:
                label = int(classes[number])
                sample: dict[str, str | bytes] = {"__key__": listing.keys[number], suffix: image}
                sample |= {} if label == NO_LABEL else {"cls": str(label).encode()}
                if images and limits.bytes and _closed(tar.tarstream.offset + _bytes_of(sample)) > limits.bytes:
                    break
                tar.write(sample)
                images += 1
                of_class[label] += 1
                suffixes.add(suffix)
            position += 1
            hear("images", position, len(order))
    return Written(images, position, of_class, suffixes, left_out)


def _read(listing: Listing, number: int) -> bytes | None:
    try:
        return listing.read(number)
    except OSError as error:
        raise RunError(
            f"{listing.names[number]}: cannot be read ({reason_of(error)}), but was there when it was listed; restore "
            "it, and run the same command again"
        ) from None


def _unusable(name: str, image: bytes | None) -> LeftOut:
    return LeftOut(name, Reason.content, kind_of(image)) if image else LeftOut(name, Reason.empty)


def _bytes_of(sample: dict[str, str | bytes]) -> int:
    """What a sample takes in a tar."""
    size = 0
    for suffix, content in sample.items():
        if suffix != "__key__":
            member = tarfile.TarInfo(f"{sample['__key__']!s}.{suffix}")
            size += len(member.tobuf(tarfile.PAX_FORMAT)) + -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return size


def _closed(size: int) -> int:
    """The size of a tar whose members end at `size`."""
    return -(-(size + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
