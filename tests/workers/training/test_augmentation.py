"""What happens to a training image before it is hidden."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.training import Training
from smoothcert.workers.training.augmentation import Augment, Draws, generators
from tests.helpers.jobs import CROP
from tests.helpers.trainings import SETTINGS


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), padding=st.integers(1, 5))
def test_pad_crop_flip_is_what_it_says(seed, padding):
    """Oracle: one image at a time, by slicing."""
    chosen = {"crop": "pad", "padding": padding, "flip": 0.5}
    training = Training.model_validate(SETTINGS | {"augmentation": chosen})
    pixels = np.random.default_rng(seed).integers(0, 256, (5, CROP, CROP, 3), dtype=np.uint8)
    draws = Draws.of_epoch(seed, 0, 5)
    for number, image in enumerate(Augment(training).batch(pixels, draws)):
        padded = np.zeros((CROP + 2 * padding, CROP + 2 * padding, 3), np.uint8)
        padded[padding:-padding, padding:-padding] = pixels[number]
        top, left = (int(share[number] * (2 * padding + 1)) for share in (draws.top, draws.left))
        expected = padded[top : top + CROP, left : left + CROP]
        np.testing.assert_array_equal(image, expected[:, ::-1] if draws.flip[number] < 0.5 else expected)


@pytest.mark.parametrize("crop", ["none", "resized"])
def test_augmentation_of_an_image_does_not_depend_on_the_others(crop):
    """timm's and torchvision's augmentations draw from the image's own seed."""
    chosen = {"crop": crop, "color_jitter": 0.4, "random": "rand-m6-n2-mstd0.5"}
    training = Training.model_validate(SETTINGS | {"augmentation": chosen})
    pixels = np.random.default_rng(0).integers(0, 256, (4, CROP, CROP, 3), dtype=np.uint8)
    draws = Draws.of_epoch(0, 0, 4)
    augment = Augment(training)
    together = augment.batch(pixels, draws)
    alone = [augment.batch(pixels[[k]], draws.of_images(np.array([k])))[0] for k in range(4)]
    np.testing.assert_array_equal(together, alone)
    assert (together != pixels).any()


def test_each_image_has_its_own_generator():
    """Its numbers are the same in another batch, and not those of another image."""

    def numbers(*seeds):
        cpu = torch.device("cpu")
        return [
            torch.rand(3, generator=generator).tolist()
            for generator in generators(torch.tensor(seeds, dtype=torch.float64), cpu)
        ]

    first, second = numbers(0.1, 0.7)
    assert first != second
    assert numbers(0.7, 0.5)[0] == second
    assert numbers(np.nextafter(0.7, 1))[0] != second


@given(images=st.integers(1, 9), count=st.integers(1, 8), seed=st.integers(0, 99))
def test_views_are_evenly_spread(images, count, seed):
    """The first is the draw itself; offsets of an image differ by 1 / count, around the circle."""
    draws = Draws.of_epoch(seed, 0, images)
    repeated = draws.repeated(count)
    for name, share, shares in zip(Draws._fields, draws, repeated, strict=True):
        views = shares.reshape(count, images)
        assert np.array_equal(views[0], share)
        if name in ("ablation", "offset", "seed"):
            assert ((views >= 0) & (views < 1)).all()
            gaps = np.diff(np.sort(views, axis=0), axis=0)
            assert np.allclose(gaps, 1 / count)
        else:
            assert (views == share).all()


@pytest.mark.parametrize("random", ["rand-m10-n16", "rand-m10-n16-inc1", "rand-m0-n16", "rand-m0-n16-inc1"])
def test_both_ends_of_the_scale_of_random_augmentation(random):
    """Pillow takes all that timm asks for; sixteen operations an image draw each of timm's often."""
    training = Training.model_validate(SETTINGS | {"augmentation": {"random": random}})
    pixels = np.random.default_rng(0).integers(0, 256, (20, CROP, CROP, 3), dtype=np.uint8)
    assert Augment(training).batch(pixels, Draws.of_epoch(0, 0, 20)).shape == pixels.shape
