"""The batches of an epoch: each image once, in an order that follows from seed and epoch.

    cached      All decoded pixels are in memory; batches are cut from one shuffled list of all images.
    streamed    Tars are shuffled and dealt out to the processes and their loaders; images are shuffled in a buffer. So
                the order also depends on the number of processes and loaders.

Not covered: reading and counting images (data.py), the random numbers of an image (augmentation.py).
"""

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from smoothcert.manifests.errors import ImageError, RunError, ShardError, SmoothcertError
from smoothcert.manifests.shards import Shard
from smoothcert.manifests.training import Training
from smoothcert.workers.iteration import batched
from smoothcert.workers.storage.store import Store
from smoothcert.workers.tars.images import decode, decode_whole
from smoothcert.workers.tars.shard_reader import Sample
from smoothcert.workers.training.augmentation import Augment, Draws
from smoothcert.workers.training.data import LabelledImages, OneOf, samples_of

_SHM_IS_FULL = (
    "/dev/shm is full, through which loaders hand over batches; make it larger (for a container: --shm-size), or "  # noqa: S108
    "lower execution.loaders"
)


class Batch(NamedTuple):
    """Images that one process learns from in one step.

    Attributes:
        pixels: [images, crop, crop, channels] uint8, augmented.
        labels: [images] int64.
        draws: the random numbers of these images.
        left_out: unusable images among those of the batch.
    """

    pixels: Tensor
    labels: Tensor
    draws: Draws
    left_out: int = 0


class CachedEpochs(Dataset[Batch]):
    """The batches of one process, of all epochs from one on: loaders work ahead across the end of an epoch.

    All processes have equally many; item k is this process's part of batch k.

    Args:
        data: all images of the training.
        training: the training file.
        augment: its augmentation.
        first: the first epoch, from 0.
        process: this process.
    """

    def __init__(self, data: LabelledImages, training: Training, augment: Augment, first: int, process: OneOf) -> None:
        self._data, self._training, self._augment = data, training, augment
        self._first, self._process = first, process
        self.batches_per_epoch = -(-len(data.labels) // training.batch_size)
        self._begin(first)

    def _begin(self, epoch: int) -> None:
        seed, images = self._training.seed, len(self._data.labels)
        self._epoch = epoch
        self._draws = Draws.of_epoch(seed, epoch, images)
        self._order = np.random.default_rng([seed, epoch, 1]).permutation(images)

    def __len__(self) -> int:
        return (self._training.epochs - self._first) * self.batches_per_epoch

    def __getitem__(self, number: int) -> Batch:
        epochs, of_epoch = divmod(number, self.batches_per_epoch)
        if self._first + epochs != self._epoch:
            self._begin(self._first + epochs)
        size = self._training.batch_size
        whole = self._order[of_epoch * size : (of_epoch + 1) * size]
        images = whole[self._process.rank :: self._process.size]
        draws, numbers = self._draws.of_images(images), torch.from_numpy(images)
        if not len(images):
            return Batch(self._data.pixels[:0], self._data.labels[:0], draws)
        pixels = self._augment.batch(self._data.pixels[numbers].numpy(), draws)
        return Batch(torch.from_numpy(pixels), self._data.labels[numbers], draws)


class _CountedShard(NamedTuple):
    """A tar, the number of its images, and the number of images in it and all tars before it."""

    shard: Shard
    images: int
    end: int


class StreamedEpoch(IterableDataset[Batch | SmoothcertError]):
    """The batches of one process; processes may have different numbers of batches.

    Errors are items: an error raised in a loader would arrive as the text of a traceback.

    Args:
        shards: the tars in order.
        counts: the number of images in each.
        training: the training file.
        augment: its augmentation.
        store: the store that holds the tars.
        epoch: from 0.
        process: this process.
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
        self._shards = [_CountedShard(*shard) for shard in zip(shards, counts, ends, strict=True)]
        self._draws = Draws.of_epoch(training.seed, epoch, sum(counts))

    def __iter__(self) -> Iterator[Batch | SmoothcertError]:
        try:
            yield from self._batches()
        except SmoothcertError as error:
            yield error

    def _batches(self) -> Iterator[Batch]:
        """The batches of this loader, from its part of the process's tars."""
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
        for samples in batched(shuffled, training.batch_size // self._process.size):
            yield self._batch(samples)

    def _numbered(self, shards: Iterable[_CountedShard]) -> Iterator[tuple[int, Sample]]:
        """Each sample with its number among all images of the training.

        Raises:
            ShardError: a tar does not hold as many images as were counted.
        """
        training = self._training
        for shard, count, end in shards:
            index = -1
            for index, sample in enumerate(samples_of(shard, training.images, training.model.classes, self._store)):
                yield end - count + index, sample
            if index + 1 != count:
                raise ShardError(f"shard {shard.name}: {index + 1} images, {count} when the training began; restore it")

    def _batch(self, samples: Sequence[tuple[int, Sample]]) -> Batch:
        draws = self._draws.of_images(np.array([number for number, _ in samples]))
        resized = self._training.augmentation.crop == "resized"
        kept, pixels, labels = [], [], []
        for place, (_, sample) in enumerate(samples):
            image = self._decode_rectangle(sample, draws.seed[place]) if resized else self._decode(sample)
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

    def _decode(self, sample: Sample) -> NDArray[np.uint8] | None:
        """The pixels that are certified; None if the image cannot be read."""
        return decode(sample.image, self._training.preprocess).pixels

    def _decode_rectangle(self, sample: Sample, seed: float) -> NDArray[np.uint8] | None:
        """A random rectangle of the whole image, augmented; None if the image cannot be read."""
        try:
            return self._augment.whole(decode_whole(sample.image, self._training.preprocess), seed)
        except ImageError:
            return None


def batches_of(epoch: CachedEpochs | StreamedEpoch, training: Training) -> Iterator[Batch]:
    """The batches in order; loader processes make them if the training file asks for loaders.

    Raises:
        SmoothcertError: a tar cannot be read; or loaders have no room in /dev/shm.
    """
    loader = DataLoader(
        epoch, batch_size=None, shuffle=False, num_workers=training.execution.loaders, collate_fn=_keep_as_is
    )
    batches = iter(loader)
    while True:
        try:
            item = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:  # torch has no error of its own for a full /dev/shm
            if not re.search("No space left|shared memory", str(error)):
                raise
            raise RunError(_SHM_IS_FULL) from None
        if isinstance(item, SmoothcertError):
            raise item
        yield item


def _keep_as_is(batch: Any) -> Any:
    return batch
