"""Training images: each once an epoch, none lost in silence, what is drawn independent of who draws."""

import pytest
import torch

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.data import read_images, refuse_losses
from tests.helpers.jobs import CLASSES, samples
from tests.helpers.tars import tar_of, write_tar
from tests.helpers.trainings import small_training

CROP = 16


def read(training):
    store = AnyStore(training.storage)
    shards = find_shards(training.images, store)
    return read_images(shards, training.images, training.preprocess, training.model.classes, store)


def test_what_cannot_be_learned_from_is_counted_or_an_error(tmp_path):
    """An image without a label is left out; more than one in a hundred end the training, naming the first."""
    training = small_training(tmp_path)
    write_tar(tmp_path / "tars", tar_of([*samples(0, 120), ("bad.png", b"no image"), ("bad.cls", b"1")]), "00.tar")
    images = read(training)
    assert images.left_out == 1
    refuse_losses("images", images.left_out, 131, images.problem)
    write_tar(tmp_path / "tars", tar_of([*samples(0, 20), ("none.png", samples(0, 1)[0][1])]), "00.tar")
    images = read(training)
    with pytest.raises(RunError, match=r"images\.shards: 1 of 31 images cannot be used \(first: 00\.tar, none: no"):
        refuse_losses("images", images.left_out, 31, images.problem)


def test_limit_takes_the_first_images(tmp_path):
    """Across tars."""
    training = small_training(tmp_path, tars=(3, 5))
    limited = training.model_copy(update={"images": training.images.model_copy(update={"limit": 7})})
    assert torch.equal(read(limited).pixels, read(training).pixels[:7])
    assert CLASSES == 3 and read(limited).labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
