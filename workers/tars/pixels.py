"""The pixels of a shard: fetched, checked, decoded, in batches.

    shard -> local tar -> headers -> samples -> pixels, [crop, crop, channels] uint8

Batches depend only on positions in the shard, so every machine computes the same ones. The only property of a model
that matters here is its number of classes, which says which labels are valid. So several models can vote on one stream
of batches.

Not covered: votes (votes/); which shards there are (manifests/shards.py).
"""

import hashlib
import platform
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothcert.manifests.errors import RequestError, ShardError
from smoothcert.manifests.job import Images, Preprocess
from smoothcert.manifests.shards import Shard
from smoothcert.workers.iteration import batched
from smoothcert.workers.storage.store import Store, sha256_of
from smoothcert.workers.tars.images import DecodedImage, decode
from smoothcert.workers.tars.shard_reader import Sample, read_samples
from smoothcert.workers.tars.tar_headers import TarContents, read_tar


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


@dataclass(frozen=True)
class PixelReader:
    """Opens shards and decodes their images.

    Attributes:
        images: which members are image and label.
        preprocess: how an image becomes pixels.
        classes: labels are 0 to `classes` - 1.
        images_per_batch: samples in each batch but the last.
        threads: number of threads that decode.
        store: holds the shards.
    """

    images: Images
    preprocess: Preprocess
    classes: int
    images_per_batch: int
    threads: int
    store: Store

    @contextmanager
    def open(self, shard: Shard, limit: int | None = None) -> Iterator["OpenShard"]:
        """Fetch a shard and check its headers. At the end, check that nobody changed it meanwhile.

        Args:
            shard: as planned.
            limit: largest number of samples to read; None for all.
        Raises:
            ShardError: the tar is missing, changed since the plan, or cannot be read whole.
        """
        self._require_unchanged(shard)
        with self.store.local(shard.url) as tar:
            if tar.stat().st_size != shard.size:
                raise _changed(shard, tar.stat().st_size)
            yield OpenShard(self, tar, read_tar(tar, self.images), limit)
            self._require_unchanged(shard)

    def require_same_batches(self, other: "PixelReader") -> None:
        """Refuse a reader that would not give the same batches.

        Raises:
            RequestError: it names the keys of the job file that differ.
        """
        mine, its = self._batch_settings(), other._batch_settings()
        if differing := [key for key in mine if mine[key] != its[key]]:
            raise RequestError(
                f"{', '.join(differing)}: jobs that share the pixels of their shards must agree in this; certify them "
                "one after another"
            )

    def _batch_settings(self) -> dict[str, object]:
        """The settings that determine the batches, by their keys in the job file."""
        names = ("resize", "crop", "interpolation", "orient")
        return {
            "images": self.images,
            **{f"preprocess.{name}": getattr(self.preprocess, name) for name in names},
            "preprocess.mean (number of channels)": self.preprocess.channels,
            "model.classes": self.classes,
            "execution.images_per_batch": self.images_per_batch,
        }

    def _require_unchanged(self, shard: Shard) -> None:
        entry = self.store.find(shard.url)
        if entry is None:
            raise ShardError(f"{shard.url} is gone, or not on {platform.node()}; restore it")
        if (entry.size, entry.fingerprint) != (shard.size, shard.fingerprint):
            raise _changed(shard, entry.size)


def _changed(shard: Shard, size: int) -> ShardError:
    return ShardError(
        f"{shard.url} changed since the run was planned ({shard.size} bytes then, {size} now); "
        "run the command again (another size makes another run)"
    )


@dataclass(frozen=True)
class OpenShard:
    """A local tar whose headers are checked.

    Attributes:
        reader: the reader that opened it.
        tar: the local file.
        contents: what its headers say.
        limit: largest number of samples to read; None for all.
    """

    reader: PixelReader
    tar: Path
    contents: TarContents
    limit: int | None

    def sha256(self) -> str:
        """SHA-256 of the tar, in hex."""
        return sha256_of(self.tar)

    def batches(self) -> Generator[Batch, None, None]:
        """Decode the samples in tar order.

        Raises:
            ShardError: the samples are not those that the headers list.
        """
        reader = self.reader
        samples = read_samples(
            self.tar, reader.images, classes=reader.classes, limit=self.limit, contents=self.contents
        )
        with ThreadPoolExecutor(reader.threads) as decoders:
            for group in batched(samples, reader.images_per_batch):
                decoded = decoders.map(lambda sample: _decode(sample, reader.preprocess), group)
                yield _stack(decoded)


def _decode(sample: Sample, preprocess: Preprocess) -> tuple[DecodedSample, NDArray[np.uint8] | None]:
    image = decode(sample.image, preprocess)
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
