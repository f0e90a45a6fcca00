"""Reads the samples of a tar, each image exactly once.

webdataset groups the members into samples. It drops what it does not understand. So the headers are checked first
(tar_headers.py), and webdataset must yield exactly the images that they list.

Not covered: decoding (images.py); labels (labels.py); which tars there are (manifests/shards.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from webdataset.tariterators import group_by_keys, tar_file_iterator

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import Images
from smoothcert.workers.tars.labels import label_of
from smoothcert.workers.tars.tar_headers import TarContents, is_system_member, read_tar


@dataclass(frozen=True)
class Sample:
    """One image of a shard.

    Attributes:
        key: the name of its members up to the first dot.
        index: its row, counted from 0 in tar order.
        image: the bytes of the image file.
        image_offset: where these bytes begin in the tar.
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
    tar: Path, images: Images, *, classes: int, limit: int | None = None, contents: TarContents | None = None
) -> Iterator[Sample]:
    """Check the whole tar, then yield its samples in order.

    Args:
        tar: a local file.
        images: which members are image and label.
        classes: labels are 0 to `classes` - 1.
        limit: largest number of samples; None for all.
        contents: the result of `read_tar`, if the caller has it already.
    Raises:
        ShardError: the tar is not whole, or not every image in it would become exactly one sample.
    """
    expected = (contents or read_tar(tar, images)).images[:limit]
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
            label = label_of(sample, images, classes)
            yield Sample(member.key, number, sample[member.suffix], member.offset, label.number, label.error)
