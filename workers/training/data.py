"""Training images: each once an epoch, in an order that follows from seed and epoch.

    cached      all decoded pixels in memory; batches are cut from one shuffled list of all images
    streamed    tars shuffled and dealt out to processes and their loaders, on whose numbers the order depends, too;
                images shuffled among those that come next

An image that cannot be read, or has no label, is left out and counted; more than 1 % of them is an error.
Not covered: what is drawn for an image (augmentation.py).
"""

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from smoothcert.manifests.errors import ImageError, RequestError, RunError, ShardError, SmoothcertError
from smoothcert.manifests.job import Images, Preprocess
from smoothcert.manifests.shards import Shard
from smoothcert.manifests.training import Training
from smoothcert.workers.storage.store import Store
from smoothcert.workers.tars.images import decode, decode_whole
from smoothcert.workers.tars.shard_reader import Sample, naming, read_samples
from smoothcert.workers.tars.tar_headers import read_tar
from smoothcert.workers.training.augmentation import Augment, Draws

_T = TypeVar("_T")
_MAX_LEFT_OUT = 0.01
_DECODE_THREADS = 4
_SHM_IS_FULL = (
    "/dev/shm is full, through which loaders hand over batches; make it larger (for a container: --shm-size), or "  # noqa: S108
    "lower execution.loaders"
)


class Batch(NamedTuple):
    """Images that one process learns from in one step.

    Attributes:
        pixels: [images, crop, crop, channels] uint8, augmented.
        labels: [images] int64.
        draws: for these images.
        left_out: images passed over on the way.
    """

    pixels: Tensor
    labels: Tensor
    draws: Draws
    left_out: int = 0


class OneOf(NamedTuple):
    """One of several processes."""

    rank: int = 0
    size: int = 1


class LabelledImages(NamedTuple):
    """Decoded images.

    Attributes:
        pixels: [images, crop, crop, channels] uint8.
        labels: [images] int64.
        left_out: how many more there are, which cannot be used.
        complaint: of the first of these.
    """

    pixels: Tensor
    labels: Tensor
    left_out: int
    complaint: str = ""


def read_images(
    shards: Sequence[Shard],
    images: Images,
    preprocess: Preprocess,
    classes: int,
    store: Store,
    process: OneOf = OneOf(),  # noqa: B008  a named tuple
) -> LabelledImages:
    """The labelled images of the shards, as they are certified; of several processes, each reads its own.

    Raises:
        RunError: a tar is not whole.
    """
    pixels, labels, complaint = bytearray(), list[int](), ""
    seen = mine = 0
    with ThreadPoolExecutor(_DECODE_THREADS) as threads:
        for shard in shards:
            left = None if images.limit is None else images.limit - seen
            if left == 0:
                break
            samples = list(_samples(shard, images, classes, store, limit=left))
            own = [sample for number, sample in enumerate(samples, seen) if number % process.size == process.rank]
            seen, mine = seen + len(samples), mine + len(own)
            decoded = threads.map(lambda sample: decode(sample.image, preprocess), own)
            for sample, image in zip(own, decoded, strict=True):
                if image.pixels is None or sample.label is None:
                    complaint = complaint or f"{shard.name}, {sample.key}: {image.error or _unlabelled(sample)}"
                else:
                    pixels += image.pixels.tobytes()
                    labels.append(sample.label)
    shape = (len(labels), preprocess.crop, preprocess.crop, preprocess.channels)
    array = np.frombuffer(pixels, np.uint8).reshape(shape)  # writable, and the bytes are there once
    return LabelledImages(
        torch.from_numpy(array), torch.tensor(labels, dtype=torch.int64), mine - len(labels), complaint
    )


def refuse_losses(key: str, left_out: int, seen: int, complaint: str = "") -> None:
    """Raise a RunError where more than 1 % of the images at a key were left out, or none is left."""
    if left_out > _MAX_LEFT_OUT * seen or left_out == seen:
        raise RunError(
            f"{key}.shards: {left_out:,} of {seen:,} images cannot be used"
            f"{f' (first: {complaint})' if complaint else ''}; repair them, or correct {key}.label and preprocess"
        )


def refuse_idle(tars: int, training: Training) -> None:
    """Raise a RequestError where there are fewer tars than processes to read them."""
    chosen = training.execution
    readers = chosen.workers * max(1, chosen.loaders)
    if tars < readers:
        raise RequestError(
            f"execution: {readers} processes read (workers x loaders), of {tars} tar(s); use fewer, more and smaller "
            "tars, or cache: true"
        )


def count_images(shards: Sequence[Shard], images: Images, store: Store) -> list[int]:
    """Images of each tar: from its index file, or by reading the tar's headers."""
    counts = []
    for shard in shards:
        if shard.images is not None:
            counts.append(shard.images)
            continue
        with store.local(shard.url) as tar, naming(shard):
            counts.append(len(read_tar(tar, images).images))
    return counts


class CachedEpoch(Dataset[Batch]):
    """The batches of one process, all processes have equally many: item k is its part of batch k."""

    def __init__(self, data: LabelledImages, training: Training, augment: Augment, epoch: int, process: OneOf) -> None:
        self._data, self._augment, self._process = data, augment, process
        self._batch_size = training.batch_size
        images = len(data.labels)
        self._draws = Draws.of_epoch(training.seed, epoch, images)
        self._order = np.random.default_rng([training.seed, epoch, 1]).permutation(images)

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, number: int) -> Batch:
        whole = self._order[number * self._batch_size : (number + 1) * self._batch_size]
        images = whole[self._process.rank :: self._process.size]
        draws, numbers = self._draws.of_images(images), torch.from_numpy(images)
        if not len(images):
            return Batch(self._data.pixels[:0], self._data.labels[:0], draws)
        pixels = self._augment.batch(self._data.pixels[numbers].numpy(), draws)
        return Batch(torch.from_numpy(pixels), self._data.labels[numbers], draws)


class _Numbered(NamedTuple):
    """A tar, how many images it has, and how many it has together with all before it."""

    shard: Shard
    images: int
    end: int


class StreamedEpoch(IterableDataset[Batch | SmoothcertError]):
    """The batches of one process; processes may have more or fewer.

    Errors are items: raised in a loader, they would arrive as the text of a traceback.

    Args:
        shards: the tars in order.
        counts: how many images each has.
        training: the training file.
        augment: its augmentation.
        store: holds the tars.
        epoch: from 0.
        process: this one.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        counts: Sequence[int],
        training: Training,
        augment: Augment,
        store: Store,
        epoch: int,
        process: OneOf,
    ) -> None:
        self._training, self._augment, self._store = training, augment, store
        self._epoch, self._process = epoch, process
        ends = itertools.accumulate(counts)
        self._shards = [_Numbered(*shard) for shard in zip(shards, counts, ends, strict=True)]
        self._draws = Draws.of_epoch(training.seed, epoch, sum(counts))

    def __iter__(self) -> Iterator[Batch | SmoothcertError]:
        try:
            yield from self._batches()
        except SmoothcertError as error:
            yield error

    def _batches(self) -> Iterator[Batch]:
        """A process's loaders deal its tars among themselves."""
        training, loader = self._training, get_worker_info()
        loaders, number = (1, 0) if loader is None else (loader.num_workers, loader.id)
        order = np.random.default_rng([training.seed, self._epoch, 1]).permutation(len(self._shards))
        part, parts = self._process.rank * loaders + number, self._process.size * loaders
        mine = [self._shards[place] for place in order[part::parts]]
        shuffled = webdataset.shuffle(
            training.shuffle_images,
            initial=training.shuffle_images,
            rng=random.Random(f"{training.seed} {self._epoch} {part}"),  # noqa: S311
        )(self._numbered(mine))
        for samples in _in_batches(shuffled, training.batch_size // self._process.size):
            yield self._batch(samples)

    def _numbered(self, shards: Iterable[_Numbered]) -> Iterator[tuple[int, Sample]]:
        for shard, count, end in shards:
            index = -1
            for index, sample in enumerate(
                _samples(shard, self._training.images, self._training.model.classes, self._store)
            ):
                yield end - count + index, sample
            if index + 1 != count:
                raise ShardError(f"shard {shard.name}: {index + 1} images, {count} when the training began; restore it")

    def _batch(self, samples: Sequence[tuple[int, Sample]]) -> Batch:
        draws = self._draws.of_images(np.array([number for number, _ in samples]))
        resized = self._training.augmentation.crop == "resized"
        kept, pixels, labels = [], [], []
        for place, (_, sample) in enumerate(samples):
            image = self._rectangle(sample, draws.seed[place]) if resized else self._certified(sample)
            if image is not None and sample.label is not None:
                kept.append(place)
                pixels.append(image)
                labels.append(sample.label)
        draws = draws.of_images(np.array(kept, np.int64))
        crop, channels = self._training.preprocess.crop, self._training.preprocess.channels
        stack = np.stack(pixels) if pixels else np.zeros((0, crop, crop, channels), np.uint8)
        if not resized and pixels:
            stack = self._augment.batch(stack, draws)
        return Batch(torch.from_numpy(stack), torch.tensor(labels, dtype=torch.int64), draws, len(samples) - len(kept))

    def _certified(self, sample: Sample) -> NDArray[np.uint8] | None:
        return decode(sample.image, self._training.preprocess).pixels

    def _rectangle(self, sample: Sample, seed: float) -> NDArray[np.uint8] | None:
        try:
            return self._augment.whole(decode_whole(sample.image, self._training.preprocess), seed)
        except ImageError:
            return None


def batches_of(epoch: CachedEpoch | StreamedEpoch, training: Training) -> Iterator[Batch]:
    """The batches of an epoch in order, made by other processes where the training file names some."""
    loader = DataLoader(
        epoch, batch_size=None, shuffle=False, num_workers=training.execution.loaders, collate_fn=_as_it_is
    )
    batches = iter(loader)
    while True:
        try:
            item = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:  # of torch, whose loaders hand over batches in files there
            if not re.search("No space left|shared memory", str(error)):
                raise
            raise RunError(_SHM_IS_FULL) from None
        if isinstance(item, SmoothcertError):
            raise item
        yield item


def _as_it_is(batch: Any) -> Any:
    return batch


def _samples(shard: Shard, images: Images, classes: int, store: Store, *, limit: int | None = None) -> Iterator[Sample]:
    with store.local(shard.url) as tar, naming(shard):
        yield from read_samples(tar, images, classes=classes, limit=limit)


def _unlabelled(sample: Sample) -> str:
    return sample.label_error or "no label"


def _in_batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, size)):
        yield batch
