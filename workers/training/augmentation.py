"""The random changes of a training image before its ablation, and the random numbers of an image.

All random numbers of an image follow from seed, epoch and the image's number. So they depend neither on the number of
processes nor on the order of the images.

Padding, cropping and flipping take a whole batch of pixels at once. Random rectangles, colours and random augmentation
are torchvision's and timm's; they take one image at a time.

Not covered: mixup and cutmix, which also need a batch of targets (learner.py).
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform
from torch import Tensor
from torchvision.transforms import ColorJitter, Compose, InterpolationMode, RandomResizedCrop

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.training import Training
from smoothcert.workers.tars.images import image_of, pixels_of

Pixels = NDArray[np.uint8]
Shares = NDArray[np.float64]


class Draws(NamedTuple):
    """The random numbers of each image of an epoch, [images] each, from 0 to below 1."""

    ablation: Shares
    offset: Shares
    top: Shares
    left: Shares
    flip: Shares
    seed: Shares

    @classmethod
    def of_epoch(cls, seed: int, epoch: int, images: int) -> "Draws":
        return cls(*np.random.default_rng([seed, epoch]).random((len(cls._fields), images)))

    def of_images(self, images: NDArray[np.int64]) -> "Draws":
        return Draws(*(share[images] for share in self))

    def repeated(self, count: int) -> "Draws":
        """All images, `count` times over. Each time shifts ablation, offset and seed by 1 / count."""
        shifts = np.arange(count)[:, None] / count
        return Draws(
            *(
                ((share + shifts) % 1).ravel() if name in ("ablation", "offset", "seed") else np.tile(share, count)
                for name, share in zip(self._fields, self, strict=True)
            )
        )


def seed_everything(*key: int) -> None:
    """Seed the generators that libraries share: Python's, NumPy's and torch's."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generators(seeds: Tensor, device: torch.device) -> Iterator[torch.Generator]:
    """The generator of each image's further random numbers, seeded before it is given out.

    Args:
        seeds: [images] float64, of `Draws.seed`.
        device: where the numbers are made.
    """
    generator = torch.Generator(device)
    for seed in seeds.tolist():
        generator.manual_seed(int(seed * 2**53))  # all digits: other numbers than those of the augmentation
        yield generator


class Augment:
    """The augmentation of a training file.

    Raises:
        RequestError: timm does not understand `augmentation.random`.
    """

    def __init__(self, training: Training) -> None:
        chosen, crop = training.augmentation, training.preprocess.crop
        self._chosen, self._crop = chosen, crop
        interpolation = InterpolationMode(training.preprocess.interpolation)
        self._rectangle = RandomResizedCrop(crop, scale=chosen.scale, interpolation=interpolation)
        steps = []
        if chosen.color_jitter:
            steps.append(ColorJitter(*[chosen.color_jitter] * 3))
        if chosen.random is not None:
            # The values of timm.data.create_transform.
            settings = {
                "translate_const": int(crop * 0.45),
                "img_mean": tuple(min(255, round(255 * channel)) for channel in training.preprocess.mean),
            }
            try:
                steps.append(_keeping_a_bit(rand_augment_transform(chosen.random, settings)))
            except (AssertionError, ValueError, KeyError) as error:
                raise RequestError(
                    f"augmentation.random: timm does not understand {chosen.random!r} ({error!r}); "
                    "write it as rand-m6-n2-mstd0.5"
                ) from None
        self._steps = Compose(steps)

    def batch(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Augment images of the crop's size, [images, crop, crop, channels]."""
        if self._chosen.crop == "resized":
            return _one_by_one(self.whole, pixels, draws)
        pixels = self._crop_and_flip(pixels, draws)
        if self._chosen.per_image:
            return _one_by_one(self._colours, pixels, draws)
        return pixels

    def whole(self, image: Image.Image, seed: float) -> Pixels:
        """Cut a random rectangle, flip it at random and augment it: [crop, crop, channels]."""
        _seed(seed)
        image = self._rectangle(image)
        if random.random() < self._chosen.flip:  # noqa: S311
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return pixels_of(self._steps(image))

    def _colours(self, image: Image.Image, seed: float) -> Pixels:
        _seed(seed)
        return pixels_of(self._steps(image))

    def _crop_and_flip(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Crop and flip a batch by one gather; without a border the crop is the image itself."""
        border = self._chosen.padding if self._chosen.crop == "pad" else 0
        padded = np.pad(pixels, ((0, 0), (border, border), (border, border), (0, 0)))
        top, left = (np.floor(share * (2 * border + 1)).astype(np.int64) for share in (draws.top, draws.left))
        across = np.arange(self._crop)
        mirrored = np.where((draws.flip < self._chosen.flip)[:, None], across[::-1], across)
        images = np.arange(len(pixels))[:, None, None]
        return padded[images, (top[:, None] + across)[:, :, None], (left[:, None] + mirrored)[:, None, :]]


def _keeping_a_bit(transform: RandAugment) -> RandAugment:
    """At the ends of its scale timm asks Pillow to keep no bit of a colour, which Pillow refuses."""
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            operation.level_fn = partial(_at_least_one, operation.level_fn)
    return transform


def _at_least_one(
    bits_of: Callable[[float, dict[str, Any]], tuple[int]], level: float, settings: dict[str, Any]
) -> tuple[int]:
    return (max(1, *bits_of(level, settings)),)


def _one_by_one(augment: Callable[[Image.Image, float], Pixels], pixels: Pixels, draws: Draws) -> Pixels:
    return np.stack([augment(image_of(image), seed) for image, seed in zip(pixels, draws.seed, strict=True)])


def _seed(share: float) -> None:
    """Seed the shared generators of the CPU for one image; torch.manual_seed takes longer than an augmentation."""
    seed = int(share * 2**32)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
