"""What a packing writes beside its tars.

    OUT/00000.tar ...          each appears when it is complete
    OUT/left_out.csv           what was left out and why, if anything was
    OUT/index.json             written last: the tars, their images, the classes; also an index for wids
    OUT/.packing/              until then: the request, a record for each tar, a lock, copies

Not covered: reading index.json for a job (manifests/index_file.py).
"""

from typing import Annotated, Any

from pydantic import Field

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.runs.json_file import Record
from smoothcert.workers.runs.records import Counts, Texts

_FROM_LIST = Field(strict=False)  # JSON has lists where a record has tuples


class PackRequest(Record):
    """What determines the tars, byte by byte."""

    error = RequestError
    remedy = "name another folder"
    json_style = {"indent": 1}  # noqa: RUF012  a ClassVar of Record

    source: str
    """Where the images were; they may move."""
    images: int
    """How many images the source lists."""
    fingerprint: str
    """Hash of their names, sizes, times and labels."""
    seed: int | None
    """Seed of the order; null for the order of the source."""
    shard_images: int | None
    """Most images in a tar; null for any number."""
    shard_bytes: int | None
    """Most bytes in a tar; null for any number."""
    names: str
    """Pattern of the names of the tars."""
    classes_sha256: str
    """SHA-256 of class numbers and names, in hex."""


class ShardEntry(Record):
    """A finished tar. The last one has no images, and there is no tar, if the images left were unusable.

    Attributes:
        name, size, sha256: of the tar.
        images: samples in it.
        position: how many places of the order are done with it.
        of_class: images of each class, by its number as text; "-1" for images without label.
        suffixes: of the images, as readers of the tar see them.
        left_out: name, reason and detail of each image that was found unusable on the way.
    """

    error = RequestError
    remedy = "remove it, and run the same command again"

    name: str
    size: int
    sha256: str
    images: int
    position: int
    of_class: dict[str, int]
    suffixes: Texts
    left_out: Annotated[tuple[Annotated[tuple[str, str, str], _FROM_LIST], ...], _FROM_LIST] = ()


class PackIndex(Record):
    """index.json."""

    error = RequestError
    remedy = "restore it, or pack into another folder"
    json_style = {"indent": 1}  # noqa: RUF012

    wids_version: int = 1
    """Version of the format of the index, as wids has it."""
    packed: PackRequest
    """What was asked for; its presence says that smoothcert wrote the file."""
    images: int
    """Images in all tars."""
    unlabelled: int
    """Those of them without label."""
    classes: Texts | None
    """Names of the classes 0, 1, ...; null if only numbers are known."""
    images_of_class: Counts
    """Images of each class, by number."""
    suffixes: Texts
    """Suffixes of the images."""
    left_out: dict[str, int]
    """Number of things in the source that were left out, by reason."""
    shardlist: Annotated[tuple[dict[str, Any], ...], _FROM_LIST]
    """`url`, `nsamples`, `filesize` (bytes) and `sha256` of each tar, as wids has it."""
