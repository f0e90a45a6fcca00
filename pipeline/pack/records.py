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
    """What determines the tars, byte by byte.

    Attributes:
        source: where the images are; it may move.
        images: how many the source lists.
        fingerprint: of their names, sizes, times and labels.
        seed: of the order; None for the order of the source.
        shard_images, shard_bytes: the most that a tar holds; None for any number.
        names: of the tars.
        classes_sha256: of class numbers and names.
    """

    error = RequestError
    remedy = "name another folder"
    json_style = {"indent": 1}  # noqa: RUF012  a ClassVar of Record

    source: str
    images: int
    fingerprint: str
    seed: int | None
    shard_images: int | None
    shard_bytes: int | None
    names: str
    classes_sha256: str


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
    """index.json.

    Attributes:
        packed: the request; its presence says that smoothcert wrote the file.
        images, unlabelled: in all tars; without label.
        classes: names of the classes 0, 1, ...; None if only numbers are known.
        images_of_class: by number.
        suffixes: of the images.
        left_out: how many, by reason.
        shardlist: `url`, `nsamples`, `filesize` and `sha256` of each tar, as wids has it.
    """

    error = RequestError
    remedy = "restore it, or pack into another folder"
    json_style = {"indent": 1}  # noqa: RUF012

    wids_version: int = 1
    packed: PackRequest
    images: int
    unlabelled: int
    classes: Texts | None
    images_of_class: Counts
    suffixes: Texts
    left_out: dict[str, int]
    shardlist: Annotated[tuple[dict[str, Any], ...], _FROM_LIST]
