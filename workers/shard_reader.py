"""A tar to samples, each image exactly once.

Samples are grouped by webdataset's own iteration. Since it drops what it does not understand, the headers
are checked first (tar_headers.py), and what webdataset yields must be what they promise.

Not covered: decoding (images.py); which tars there are (manifests/shards.py).
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webdataset.tariterators import group_by_keys, tar_file_iterator

from manifests.errors import ShardError
from manifests.job import Images
from manifests.shards import Shard
from workers.tar_headers import TarIndex, is_system_member, read_index

_WHOLE_NUMBER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)  # int() would also take 1_0 and digits of other scripts


@dataclass(frozen=True)
class Sample:
    """One image of a shard.

    Attributes:
        key: name of its members up to the first dot.
        index: its row, counted from 0 in tar order.
        image: bytes of the image file.
        image_offset: where they lie in the tar.
        label: the class, or None.
        label_error: what is wrong with the label, or None.
    """

    key: str
    index: int
    image: bytes
    image_offset: int
    label: int | None
    label_error: str | None


def read_samples(
    tar: Path, images: Images, *, classes: int, limit: int | None = None, index: TarIndex | None = None
) -> Iterator[Sample]:
    """Check the whole tar, then give its samples in order.

    Args:
        tar: a local file.
        images: which members are image and label.
        classes: labels are 0 to `classes` - 1.
        limit: at most so many samples, None for all.
        index: of the tar, where the caller has read it.
    Raises:
        ShardError: the tar is not whole, or not every image in it would become exactly one sample.
    """
    expected = (index or read_index(tar, images)).images[:limit]
    with tar.open("rb") as file:
        members = (
            {**member, "__url__": tar.name}
            for member in tar_file_iterator(file)
            if not is_system_member(member["fname"])
        )
        samples = (sample for sample in group_by_keys(members) if sample.keys() & set(images.image))
        for number, member in enumerate(expected):
            sample = next(samples, None)
            if sample is None or sample["__key__"] != member.key or len(sample[member.suffix]) != member.size:
                raise ShardError(f"image {member.key}.{member.suffix}: not read as its header says; pack the tar again")
            label, label_error = _label_of(sample, images.label, classes)
            yield Sample(member.key, number, sample[member.suffix], member.offset, label, label_error)


@contextmanager
def naming(shard: Shard) -> Iterator[None]:
    """Errors of a shard that say which."""
    try:
        yield
    except ShardError as error:
        raise ShardError(f"shard {shard.name}: {error}") from None


def _label_of(sample: dict[str, Any], label: str | None, classes: int) -> tuple[int | None, str | None]:
    """(label, None), or (None, what is wrong)."""
    if label is None:
        return None, None
    member, _, field = label.partition(":")
    if member not in sample:
        return None, f"no member .{member}"
    value: Any = sample[member]
    try:
        if field:
            value = json.loads(value)[field]
        number = _whole_number(value)
    except (ValueError, KeyError, TypeError) as error:
        return None, f".{label} is no class index: {' '.join(repr(error).split())[:160]}"
    if not 0 <= number < classes:
        return None, f"label {number} is not one of the {classes} classes"
    return number, None


def _whole_number(value: Any) -> int:
    text = value.decode() if isinstance(value, bytes) else value
    if isinstance(text, str) and _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    if type(value) is not int:  # a bool is an int to isinstance
        raise ValueError(f"{value!r} is no whole number")
    return value
