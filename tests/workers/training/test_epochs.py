"""The batches of an epoch: each image once, and what is drawn for it does not depend on who draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.shards import find_shards
from smoothcert.manifests.training import Training
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.augmentation import Augment, Draws
from smoothcert.workers.training.data import LabelledImages, OneOf, count_images, read_images
from smoothcert.workers.training.epochs import CachedEpochs, StreamedEpoch, batches_of
from tests.helpers.jobs import CROP
from tests.helpers.trainings import SETTINGS, small_training


def read(training):
    store = AnyStore(training.storage)
    shards = find_shards(training.images, store)
    return read_images(shards, training.images, training.preprocess, training.model.classes, store)


def streamed(training, epoch=0, process=OneOf()):  # noqa: B008  a named tuple
    store = AnyStore(training.storage)
    shards = find_shards(training.images, store)
    counts = count_images(shards, training.images, store)
    return batches_of(StreamedEpoch(shards, counts, training, Augment(training), store, epoch, process), training)


@settings(max_examples=40)
@given(images=st.integers(1, 40), per_process=st.integers(1, 6), processes=st.integers(1, 3), epoch=st.integers(0, 3))
def test_every_cached_image_comes_once_an_epoch(images, per_process, processes, epoch):
    """Over all processes, whose steps are equally many; and with the draws of its own number."""
    training = Training.model_validate(SETTINGS | {"batch_size": per_process * processes, "epochs": epoch + 1})
    numbers = torch.arange(images)
    data = LabelledImages(numbers.to(torch.uint8)[:, None, None, None].expand(-1, CROP, CROP, 3), numbers, 0)
    parts = [
        list(batches_of(CachedEpochs(data, training, Augment(training), epoch, OneOf(rank, processes)), training))
        for rank in range(processes)
    ]
    assert len({len(batches) for batches in parts}) == 1
    seen = [(int(batch.pixels[k, 0, 0, 0]), batch.draws.offset[k]) for part in parts for batch in part
            for k in range(len(batch.labels))]  # fmt: skip
    draws = Draws.of_epoch(training.seed, epoch, images)
    assert sorted(seen) == [(number, draws.offset[number]) for number in range(images)]


@pytest.mark.parametrize("loaders", [0, 2])
def test_the_batches_of_all_epochs_are_those_of_each(tmp_path, loaders):
    """From any epoch on; loaders change neither the batches nor their order."""
    training = small_training(tmp_path, epochs=4, batch_size=4, execution={"loaders": loaders})
    data, augment = read(training), Augment(training)
    together = list(batches_of(CachedEpochs(data, training, augment, 1, OneOf()), training))
    epochs = [CachedEpochs(data, training, augment, first, OneOf()) for first in (1, 2, 3)]
    alone = [epoch[number] for epoch in epochs for number in range(epoch.batches_per_epoch)]
    assert len(together) == len(alone) > 3
    for one, other in zip(together, alone, strict=True):
        assert one.pixels.equal(other.pixels) and one.labels.equal(other.labels)
        assert (one.draws.offset == other.draws.offset).all()


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


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_tar_that_changed_is_an_error(tmp_path, loaders):
    """A stream that gives another number of images than were counted names the tar, in one line, from any process."""
    training = small_training(tmp_path, cache=False, execution={"loaders": loaders})
    store = AnyStore(training.storage)
    shards = find_shards(training.images, store)
    with pytest.raises(ShardError, match=r"^shard 0\d\.tar: 5 images, 6 when the training began; [^\n]*$"):
        list(batches_of(StreamedEpoch(shards, [6, 6, 6], training, Augment(training), store, 0, OneOf()), training))
