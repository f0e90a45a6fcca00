"""A shard becomes batches of pixels that depend on positions alone, or an error by name."""

import hashlib
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smoothcert.manifests.errors import RequestError, ShardError
from smoothcert.manifests.job import Preprocess, Storage
from smoothcert.manifests.shards import Shard
from smoothcert.workers.storage.http_client import Source
from smoothcert.workers.storage.http_store import HttpStore, copied
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars.images import decode
from smoothcert.workers.tars.pixels import Batch, PixelReader
from tests.helpers.tars import images_field, labelled, png, tar_of, write_tar

CLASSES, CROP = 3, 8
READER = PixelReader(
    images_field(),
    Preprocess(resize=None, crop=CROP),
    CLASSES,
    images_per_batch=4,
    threads=2,
    store=AnyStore(Storage()),
)


def shard_of(tar: Path) -> Shard:
    """As a plan has it."""
    entry = READER.store.find(str(tar))
    assert entry is not None
    return Shard(tar.name, entry.url, entry.size, entry.fingerprint)


def read(tar: Path, reader: PixelReader = READER, limit: int | None = None) -> list[Batch]:
    with reader.open(shard_of(tar), limit) as shard:
        return list(shard.batches())


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


def test_the_tar_is_hashed(tmp_path):
    """And its headers are read once, for the figures of the file."""
    tar = write_tar(tmp_path, tar_of([*labelled(2), ("._x.png", b"x")]))
    with READER.open(shard_of(tar)) as shard:
        assert shard.sha256() == hashlib.sha256(tar.read_bytes()).hexdigest()
        assert shard.contents.left_out.system_members == 1


def test_a_tar_that_changed_since_the_plan_is_refused(tmp_path):
    """Another size, another time, or no file at all."""
    tar = write_tar(tmp_path, tar_of(labelled(2)))
    shard = shard_of(tar)
    write_tar(tmp_path, tar_of(labelled(40)))
    with pytest.raises(ShardError, match=f"{tar} changed since the run was planned"), READER.open(shard):
        pytest.fail("it was opened")
    write_tar(tmp_path, tar_of(labelled(2)))
    os.utime(tar, (1, 1))
    with pytest.raises(ShardError, match="changed since the run was planned"), READER.open(shard):
        pytest.fail("it was opened")
    tar.unlink()
    with pytest.raises(ShardError, match=f"{tar} is gone, or not on .*; restore it"), READER.open(shard):
        pytest.fail("it was opened")


def test_a_tar_that_changes_while_it_is_read_is_refused(tmp_path):
    """What was read may be of both."""
    tar = write_tar(tmp_path, tar_of(labelled(2)))
    with pytest.raises(ShardError, match="changed since the run was planned"), READER.open(shard_of(tar)) as shard:
        assert list(shard.batches())
        os.utime(tar, (1, 1))


def test_readers_of_the_same_batches_agree():
    """What changes votes but not pixels may differ: mean and std, upsample, who decodes and where."""
    READER.require_same_batches(replace(READER, threads=7, store=AnyStore(Storage(region="eu-west-1"))))
    other = READER.preprocess.model_copy(update={"mean": (0, 0, 0), "std": (1, 1, 1), "upsample": 3})
    READER.require_same_batches(replace(READER, preprocess=other))


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"images": images_field(label=None)}, "images"),
        ({"classes": 4}, "model.classes"),
        ({"images_per_batch": 5}, "execution.images_per_batch"),
        ({"preprocess": Preprocess(resize=9, crop=CROP)}, "preprocess.resize"),
        ({"preprocess": Preprocess(resize=None, crop=9)}, "preprocess.crop"),
        ({"preprocess": Preprocess(resize=None, crop=CROP, interpolation="bicubic")}, "preprocess.interpolation"),
        ({"preprocess": Preprocess(resize=None, crop=CROP, orient=True)}, "preprocess.orient"),
        ({"preprocess": Preprocess(resize=None, crop=CROP, mean=(0.5,), std=(0.5,))}, "preprocess.mean"),
        ({"classes": 4, "images_per_batch": 5}, "model.classes, execution.images_per_batch"),
    ],
)
def test_readers_of_other_batches_are_refused(changes, keys):
    """The error names the keys of the job file, in one line."""
    with pytest.raises(RequestError) as error:
        READER.require_same_batches(replace(READER, **changes))
    assert str(error.value).startswith(keys)
    assert "\n" not in str(error.value)


def test_a_tar_that_is_sent_with_another_size_is_refused(web):
    """Whatever the store: what is read must be what was planned."""

    class Store(HttpStore):
        @contextmanager
        def local(self, url):
            with copied(self._client, Source(url, url, {}, "")) as (path, _):
                yield path

    web.announced["/a.tar"], web.files["/a.tar"] = tar_of(labelled(10)), tar_of(labelled(5))
    reader = replace(READER, store=Store())
    entry = reader.store.find(f"{web.url}/a.tar")
    shard = Shard("a.tar", entry.url, entry.size, entry.fingerprint)
    with pytest.raises(ShardError, match=rf"changed since .*\({shard.size} bytes then, .* now\)"), reader.open(shard):
        pass
