"""A shard becomes batches of pixels that depend on positions alone, or an error by name."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.tars.fetched import FetchedShard
from smoothcert.workers.tars.images import decode
from smoothcert.workers.tars.pixels import Batch, PixelReader, PixelSettings
from tests.helpers.tars import images_field, labelled, png, tar_of, write_tar

CLASSES, CROP = 3, 8
READER = PixelReader(
    images_field(),
    Preprocess(resize=None, crop=CROP),
    CLASSES,
    images_per_batch=4,
    threads=2,
)


def read(tar: Path, reader: PixelReader = READER, limit: int | None = None) -> list[Batch]:
    return list(reader.batches(FetchedShard(tar), limit))


def test_each_image_is_one_sample_with_its_pixels(tmp_path):
    """In tar order, whatever the number of threads; the facts are those of the image's own bytes."""
    tar = write_tar(tmp_path, tar_of(labelled(10)))
    for threads in (1, 3):
        batches = read(tar, replace(READER, threads=threads))
        samples = [sample for batch in batches for sample in batch.samples]
        assert [sample.key for sample in samples] == [f"{index:04d}" for index in range(10)]
        assert [sample.index for sample in samples] == list(range(10))
        assert [batch.readable for batch in batches] == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1]]
        for sample in samples:
            image, data = png(seed=sample.index), tar.read_bytes()
            assert data[sample.image_offset :][: sample.image_bytes] == image
            assert sample.sha256 == hashlib.sha256(image).digest()
            assert (sample.status, sample.error, sample.label) == ("ok", None, 0)
        pixels = np.concatenate([batch.pixels.numpy() for batch in batches])
        assert all((pixels[index] == decode(png(seed=index), READER.preprocess).pixels).all() for index in range(10))


def test_a_limit_changes_no_batch_before_it(tmp_path):
    """Batches are cut by position, so the first images of a shard are computed in the same company."""
    tar = write_tar(tmp_path, tar_of(labelled(10)))
    sizes = {limit: [len(batch.samples) for batch in read(tar, limit=limit)] for limit in (None, 7, 4)}
    assert sizes == {None: [4, 4, 2], 7: [4, 3], 4: [4]}


def test_images_without_pixels_stay_in_place(tmp_path):
    """An error of the image comes before one of the label; a label error leaves the pixels."""
    members = [
        *(("a.png", b"no image"), ("a.cls", b"cat")),
        *(("b.png", png()), ("b.cls", b"cat")),
        *(("c.png", png(9, 9)), ("c.cls", b"1")),
        *(("d.png", png(seed=4)), ("d.cls", b"2")),
    ]
    (batch,) = read(write_tar(tmp_path, tar_of(members)))
    assert [sample.status for sample in batch.samples] == ["decode_error", "label_error", "size_error", "ok"]
    assert [sample.label for sample in batch.samples] == [None, None, 1, 2]
    assert [(sample.width, sample.height) for sample in batch.samples] == [(None, None), (8, 8), (9, 9), (8, 8)]
    assert batch.readable == [1, 3]
    assert batch.pixels is not None
    assert batch.pixels.shape == (2, CROP, CROP, 3)


def test_a_batch_without_readable_images_has_no_pixels(tmp_path):
    """Its samples are rows all the same."""
    (batch,) = read(write_tar(tmp_path, tar_of([("a.png", b""), ("b.png", b"x")])))
    assert (len(batch.samples), batch.readable, batch.pixels) == (2, [], None)


def test_readers_of_equal_settings_give_equal_batches():
    """What changes votes but not pixels may differ: mean and std, upsample, who decodes."""
    assert replace(READER, threads=7).settings == READER.settings
    other = READER.preprocess.model_copy(update={"mean": (0, 0, 0), "std": (1, 1, 1), "upsample": 3})
    assert replace(READER, preprocess=other).settings == READER.settings


@pytest.mark.parametrize(
    "changes",
    [
        {"images": images_field(label=None)},
        {"classes": 4},
        {"images_per_batch": 5},
        {"preprocess": Preprocess(resize=9, crop=CROP)},
        {"preprocess": Preprocess(resize=9, crop=CROP, squash=True)},
        {"preprocess": Preprocess(resize=None, crop=9)},
        {"preprocess": Preprocess(resize=None, crop=CROP, interpolation="bicubic")},
        {"preprocess": Preprocess(resize=None, crop=CROP, orient=True)},
        {"preprocess": Preprocess(resize=None, crop=CROP, decoder="nvjpeg")},
        {"preprocess": Preprocess(resize=None, crop=CROP, mean=(0.5,), std=(0.5,))},
    ],
)
def test_readers_of_other_batches_have_other_settings(changes):
    """So they decode by themselves."""
    assert replace(READER, **changes).settings != READER.settings


@pytest.mark.parametrize("name", sorted({*Preprocess.model_fields} - {"mean", "std", "upsample"}))
def test_every_key_that_changes_pixels_is_a_setting(name):
    """A key that is added to preprocess is a setting, or a key of the network's input."""
    assert name in PixelSettings._fields
