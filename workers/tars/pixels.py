"""The pixels of a shard: checked, decoded, in batches.

    local tar -> headers -> samples -> pixels, [crop, crop, channels] uint8

Batches depend only on positions in the shard, so every machine computes the same ones. The only property of a model
that matters here is its number of classes, which says which labels are valid. So several models can vote on one stream
of batches.

Not covered: fetching the tar (fetched.py); votes (votes/).
"""

import hashlib
from collections.abc import Container, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothcert.manifests.job import Images, Preprocess
from smoothcert.workers.iteration import batched
from smoothcert.workers.tars.card_decoder import card_for, decode_on_card
from smoothcert.workers.tars.fetched import FetchedShard
from smoothcert.workers.tars.images import DecodedImage, decode
from smoothcert.workers.tars.shard_reader import Sample, read_samples


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """What is known of a sample before a model sees it; its pixels are in the batch.

    Attributes:
        key, index, image_offset, label: as in Sample.
        image_bytes: size of the image file.
        sha256: of the image file.
        status: `ok`, or the first error of the image or its label.
        error: the reason, None for `ok`.
        width, height: as stored, in pixels; None if the image has no readable header.
        rotated: whether its EXIF orientation says that the stored pixels are not upright.
    """

    key: str
    index: int
    image_offset: int
    image_bytes: int
    sha256: bytes
    status: str
    error: str | None
    label: int | None
    width: int | None
    height: int | None
    rotated: bool


class Batch(NamedTuple):
    """Neighbouring samples of a shard.

    Attributes:
        samples: in tar order.
        readable: positions in `samples` of those with pixels.
        pixels: [readable, crop, crop, channels] uint8, or None if no sample has pixels.
    """

    samples: list[DecodedSample]
    readable: list[int]
    pixels: Tensor | None


class PixelSettings(NamedTuple):
    """What determines the batches of a shard. Jobs that agree in all of it can share them.

    Attributes:
        images: which members are image and label.
        resize, squash, crop, interpolation, orient, decoder: how an image becomes pixels, as in Preprocess.
        channels: of the pixels.
        classes: labels are 0 to `classes` - 1.
        images_per_batch: samples in each batch but the last.
    """

    images: Images
    resize: int | None
    squash: bool
    crop: int
    interpolation: str
    orient: bool
    decoder: str
    channels: int
    classes: int
    images_per_batch: int


@dataclass(frozen=True)
class PixelReader:
    """Decodes the images of shards.

    Attributes:
        images: which members are image and label.
        preprocess: how an image becomes pixels.
        classes: labels are 0 to `classes` - 1.
        images_per_batch: samples in each batch but the last.
        threads: number of threads that decode.
    """

    images: Images
    preprocess: Preprocess
    classes: int
    images_per_batch: int
    threads: int

    @property
    def settings(self) -> PixelSettings:
        """Readers with equal settings give the same batches."""
        pixels = self.preprocess
        return PixelSettings(
            self.images,
            pixels.resize,
            pixels.squash,
            pixels.crop,
            pixels.interpolation,
            pixels.orient,
            pixels.decoder,
            pixels.channels,
            self.classes,
            self.images_per_batch,
        )

    def batches(
        self, shard: FetchedShard, limit: int | None = None, *, only: Container[int] | None = None
    ) -> Generator[Batch, None, None]:
        """Decode the samples in tar order.

        Args:
            shard: on this machine.
            limit: largest number of samples to read; None for all.
            only: the positions of the samples to decode; None for all.
        Raises:
            ShardError: the tar cannot be read whole, or the samples are not those that the headers list.
            RequestError: the job's decoder needs a GPU, and this process has none that fits.
        """
        card = card_for(self.preprocess)
        contents = shard.contents(self.images)
        samples = read_samples(shard.tar, self.images, classes=self.classes, limit=limit, contents=contents)
        with ThreadPoolExecutor(self.threads) as decoders:
            chosen = (sample for sample in samples if only is None or sample.index in only)
            for group in batched(chosen, self.images_per_batch):
                files = [sample.image for sample in group]
                images = (
                    decoders.map(lambda data: decode(data, self.preprocess), files)
                    if card is None
                    else decode_on_card(files, self.preprocess, card, decoders.map)
                )
                yield _stack(decoders.map(_described, group, images))


def _described(sample: Sample, image: DecodedImage) -> tuple[DecodedSample, NDArray[np.uint8] | None]:
    status, error = _status_of(sample, image)
    decoded = DecodedSample(
        key=sample.key,
        index=sample.index,
        image_offset=sample.image_offset,
        image_bytes=len(sample.image),
        sha256=hashlib.sha256(sample.image).digest(),
        status=status,
        error=error,
        label=sample.label,
        width=image.width,
        height=image.height,
        rotated=image.rotated,
    )
    return decoded, image.pixels


def _status_of(sample: Sample, image: DecodedImage) -> tuple[str, str | None]:
    if image.error is not None:
        return image.error.status, image.error.message
    if sample.label_error is not None:
        return "label_error", sample.label_error
    return "ok", None


def _stack(decoded: Iterable[tuple[DecodedSample, NDArray[np.uint8] | None]]) -> Batch:
    samples, pixels = zip(*decoded, strict=True)
    readable = [position for position, image in enumerate(pixels) if image is not None]
    stacked = torch.from_numpy(np.stack([pixels[position] for position in readable])) if readable else None
    return Batch(list(samples), readable, stacked)
