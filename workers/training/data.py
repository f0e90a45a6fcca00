"""The labelled images of a training: read, counted, and refused if too many of them are unusable.

An image that cannot be read or has no label is left out and counted. More than 1 % of such images is an error.
Not covered: the order of an epoch and its batches (epochs.py).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Images, Preprocess
from smoothcert.manifests.shards import Shard
from smoothcert.manifests.training import Training
from smoothcert.workers.storage.store import Store
from smoothcert.workers.tars.fetched import naming
from smoothcert.workers.tars.images import decode
from smoothcert.workers.tars.shard_reader import Sample, read_samples
from smoothcert.workers.tars.tar_headers import read_tar

_MAX_LEFT_OUT_SHARE = 0.01
_DECODE_THREADS = 4


class OneOf(NamedTuple):
    """The position of a process among several."""

    rank: int = 0
    size: int = 1


class LabelledImages(NamedTuple):
    """Decoded images.

    Attributes:
        pixels: [images, crop, crop, channels] uint8.
        labels: [images] int64.
        left_out: number of images that cannot be used.
        problem: why the first of them cannot be used; empty if all can be used.
    """

    pixels: Tensor
    labels: Tensor
    left_out: int
    problem: str = ""


def read_images(
    shards: Sequence[Shard],
    images: Images,
    preprocess: Preprocess,
    classes: int,
    store: Store,
    process: OneOf = OneOf(),  # noqa: B008  a named tuple
) -> LabelledImages:
    """Read the labelled images of the shards, decoded as they are certified; each process reads its own part.

    Raises:
        RunError: a tar is damaged or incomplete.
    """
    pixels, labels, problem = bytearray(), list[int](), ""
    left_out = 0
    with ThreadPoolExecutor(_DECODE_THREADS) as threads:
        for shard, samples in _samples_by_shard(shards, images, classes, store, process):
            decoded = threads.map(lambda sample: decode(sample.image, preprocess), samples)
            for sample, image in zip(samples, decoded, strict=True):
                if image.pixels is None or sample.label is None:
                    left_out += 1
                    reason = image.error or sample.label_error or "no label"
                    problem = problem or f"{shard.name}, {sample.key}: {reason}"
                else:
                    pixels += image.pixels.tobytes()
                    labels.append(sample.label)
    shape = (len(labels), preprocess.crop, preprocess.crop, preprocess.channels)
    array = np.frombuffer(pixels, np.uint8).reshape(shape)  # writable, without a second copy of the bytes
    return LabelledImages(torch.from_numpy(array), torch.tensor(labels, dtype=torch.int64), left_out, problem)


def _samples_by_shard(
    shards: Sequence[Shard], images: Images, classes: int, store: Store, process: OneOf
) -> Iterator[tuple[Shard, list[Sample]]]:
    """One process's part of the first `images.limit` samples of all shards."""
    seen = 0
    for shard in shards:
        left = None if images.limit is None else images.limit - seen
        if left == 0:
            return
        samples = list(samples_of(shard, images, classes, store, limit=left))
        yield shard, [sample for number, sample in enumerate(samples, seen) if number % process.size == process.rank]
        seen += len(samples)


def samples_of(
    shard: Shard, images: Images, classes: int, store: Store, *, limit: int | None = None
) -> Iterator[Sample]:
    """The samples of one tar, or its first `limit`."""
    with store.local(shard.url) as tar, naming(shard):
        yield from read_samples(tar, images, classes=classes, limit=limit)


def count_images(shards: Sequence[Shard], images: Images, store: Store) -> list[int]:
    """The number of images in each tar, from its index file or from the tar's headers."""
    return [_count(shard, images, store) if shard.images is None else shard.images for shard in shards]


def _count(shard: Shard, images: Images, store: Store) -> int:
    with store.local(shard.url) as tar, naming(shard):
        return len(read_tar(tar, images).images)


def refuse_losses(key: str, left_out: int, seen: int, problem: str = "") -> None:
    """Refuse a training that would leave out too many images.

    Args:
        key: the key of the images in the training file.
        left_out: images that cannot be used.
        seen: all images.
        problem: why the first of them cannot be used.
    Raises:
        RunError: more than 1 % of the images are left out, or all of them.
    """
    if left_out > _MAX_LEFT_OUT_SHARE * seen or left_out == seen:
        raise RunError(
            f"{key}.shards: {left_out:,} of {seen:,} images cannot be used"
            f"{f' (first: {problem})' if problem else ''}; repair them, or correct {key}.label and preprocess"
        )


def refuse_idle(tars: int, training: Training) -> None:
    """Refuse more reading processes than tars.

    Raises:
        RequestError: there are fewer tars than processes.
    """
    chosen = training.execution
    readers = chosen.workers * max(1, chosen.loaders)
    if tars < readers:
        raise RequestError(
            f"execution: {readers} processes (workers x loaders) would read {tars} tar(s); use fewer processes, more "
            "and smaller tars, or cache: true"
        )
