"""Training images: each once an epoch, none lost in silence, what is drawn independent of who draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.errors import RunError, ShardError
from smoothcert.manifests.shards import find_shards
from smoothcert.manifests.training import Training
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.augmentation import Augment, Draws
from smoothcert.workers.training.data import (
    CachedEpoch,
    LabelledImages,
    OneOf,
    StreamedEpoch,
    batches_of,
    count_images,
    read_images,
    refuse_losses,
)
from tests.helpers.jobs import CLASSES, samples
from tests.helpers.tars import tar_of, write_tar
from tests.helpers.trainings import SETTINGS, small_training

CROP = 16


def read(training):
    store = AnyStore(training.storage)
    shards = find_shards(training.images, store)
    return read_images(shards, training.images, training.preprocess, training.model.classes, store)


def streamed(training, epoch=0, process=OneOf()):  # noqa: B008  a named tuple
    store = AnyStore(training.storage)
    shards = find_shards(training.images, store)
    counts = count_images(shards, training.images, store)
    return batches_of(StreamedEpoch(shards, counts, training, Augment(training), store, epoch, process), training)


@settings(max_examples=40, deadline=None)
@given(images=st.integers(1, 40), per_process=st.integers(1, 6), processes=st.integers(1, 3), epoch=st.integers(0, 3))
def test_every_cached_image_comes_once_an_epoch(images, per_process, processes, epoch):
    """Over all processes, whose steps are equally many; and with the draws of its own number."""
    training = Training.model_validate(SETTINGS | {"batch_size": per_process * processes})
    numbers = torch.arange(images)
    data = LabelledImages(numbers.to(torch.uint8)[:, None, None, None].expand(-1, CROP, CROP, 3), numbers, 0)
    parts = [
        list(batches_of(CachedEpoch(data, training, Augment(training), epoch, OneOf(rank, processes)), training))
        for rank in range(processes)
    ]
    assert len({len(batches) for batches in parts}) == 1
    seen = [(int(batch.pixels[k, 0, 0, 0]), batch.draws.offset[k]) for part in parts for batch in part
            for k in range(len(batch.labels))]  # fmt: skip
    draws = Draws.of_epoch(training.seed, epoch, images)
    assert sorted(seen) == [(number, draws.offset[number]) for number in range(images)]


def test_every_streamed_image_comes_once_an_epoch(tmp_path):
    """Whatever the number of processes; an image has the same draws for each of them."""
    training = small_training(tmp_path, tars=(5, 3), cache=False, shuffle_images=4)
    everything = sorted(tuple(image.flatten()[:6].tolist()) for image in read_in_order(tmp_path))
    draws_of = {}
    for size in (1, 2, 4):
        batches = [batch for rank in range(size) for batch in streamed(training, 0, OneOf(rank, size))]
        images = [tuple(image.flatten()[:6].tolist()) for batch in batches for image in batch.pixels]
        assert sorted(images) == everything
        offsets = [offset for batch in batches for offset in batch.draws.offset]
        draws_of[size] = dict(zip(images, offsets, strict=True))
    assert draws_of[1] == draws_of[2] == draws_of[4]
    orders = [[tuple(image.flatten()[:6].tolist()) for b in streamed(training, epoch) for image in b.pixels]
              for epoch in (0, 0, 1)]  # fmt: skip
    assert orders[0] == orders[1] != orders[2]


def read_in_order(folder):
    return read(small_training(folder, tars=(5, 3))).pixels


def test_what_cannot_be_learned_from_is_counted_or_an_error(tmp_path):
    """An image without a label is left out; more than one in a hundred end the training, naming the first."""
    training = small_training(tmp_path)
    write_tar(tmp_path / "tars", tar_of([*samples(0, 120), ("bad.png", b"no image"), ("bad.cls", b"1")]), "00.tar")
    images = read(training)
    assert images.left_out == 1
    refuse_losses("images", images.left_out, 131, images.complaint)
    write_tar(tmp_path / "tars", tar_of([*samples(0, 20), ("none.png", samples(0, 1)[0][1])]), "00.tar")
    images = read(training)
    with pytest.raises(RunError, match=r"images\.shards: 1 of 31 images cannot be used \(first: 00\.tar, none: no"):
        refuse_losses("images", images.left_out, 31, images.complaint)


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_tar_that_changed_is_an_error(tmp_path, loaders):
    """A stream that gives another number of images than were counted names the tar, in one line, from any process."""
    training = small_training(tmp_path, cache=False, execution={"loaders": loaders})
    store = AnyStore(training.storage)
    shards = find_shards(training.images, store)
    with pytest.raises(ShardError, match=r"^shard 0\d\.tar: 5 images, 6 when the training began; [^\n]*$"):
        list(batches_of(StreamedEpoch(shards, [6, 6, 6], training, Augment(training), store, 0, OneOf()), training))


def test_limit_takes_the_first_images(tmp_path):
    """Across tars."""
    training = small_training(tmp_path, tars=(3, 5))
    limited = training.model_copy(update={"images": training.images.model_copy(update={"limit": 7})})
    assert torch.equal(read(limited).pixels, read(training).pixels[:7])
    assert CLASSES == 3 and read(limited).labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


@settings(max_examples=30, deadline=None)
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
