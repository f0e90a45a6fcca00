"""Pictures are shown only if the tar still holds them."""

import hashlib
import io
import re
import tarfile
import threading
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.pages.pictures import PICTURE_COLUMNS, picture_of, pictures_of
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run, open_run
from smoothcert.workers.storage.store import AnyStore


def rows_of(run: Run) -> pa.Table:
    """All rows that have votes."""
    rows = pa.concat_tables([file.rows for file in read_published(run, [*PICTURE_COLUMNS, "key", "votes"])])
    return rows.filter(rows["votes"].is_valid())


def test_a_picture_is_that_of_the_tar(finished: Path) -> None:
    """The pixels that the network saw."""
    run = open_run(str(finished))
    row = rows_of(run).to_pylist()[0]
    tar = next(task.shard.url for task in run.tasks if task.shard.name == row["shard"])
    with tarfile.open(tar) as file:
        member = file.extractfile(f"{row['key']}.png")
        assert member is not None
        expected = np.asarray(Image.open(io.BytesIO(member.read())).convert("RGB"))
    picture = picture_of(row, tar, run.job)
    assert picture.image is not None
    assert (np.asarray(picture.image) == expected).all()


def test_a_tar_that_changed_or_is_gone_gives_no_picture(finished: Path, tmp_path: Path) -> None:
    """But the reason."""
    run = open_run(str(finished))
    row = rows_of(run).to_pylist()[0]
    tar = Path(next(task.shard.url for task in run.tasks if task.shard.name == row["shard"]))
    changed = bytearray(tar.read_bytes())
    changed[row["image_offset"] + 30] ^= 1
    (tmp_path / "changed.tar").write_bytes(changed)
    assert picture_of(row, str(tmp_path / "changed.tar"), run.job) == (None, "its tar has changed since")
    assert picture_of(row, str(tmp_path / "gone.tar"), run.job).reason.startswith("its tar is out of reach: ")


def test_a_picture_that_a_gpu_decoded_is_not_shown(finished: Path) -> None:
    """Pages decode with Pillow, to other pixels than those that voted."""
    run = open_run(str(finished))
    row = rows_of(run).to_pylist()[0]
    tar = next(task.shard.url for task in run.tasks if task.shard.name == row["shard"])
    preprocess = run.job.preprocess.model_copy(update={"decoder": "nvjpeg"})
    picture = picture_of(row, tar, run.job.model_copy(update={"preprocess": preprocess}))
    assert picture == (None, "its run decodes with nvjpeg, pages with Pillow")


def test_a_picture_beyond_the_limit_is_not_decoded(finished: Path, tmp_path: Path) -> None:
    """A header that promises 100,000 x 100,000 pixels; the hash is right."""
    data = b"P6 100000 100000 255\n" + bytes(100)
    (tmp_path / "a.tar").write_bytes(data)
    row = {"image_offset": 0, "image_bytes": len(data), "sha256": hashlib.sha256(data).digest()}
    picture = picture_of(row, str(tmp_path / "a.tar"), open_run(str(finished)).job)
    assert picture.image is None
    assert picture.reason.startswith("it cannot be decoded: too_large")


def test_pictures_are_read_at_the_same_time(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, 24 reads from an unreachable server would take 12 minutes."""
    run = open_run(str(finished))
    together = threading.Barrier(4)

    def read(_store: AnyStore, url: str, _start: int, _length: int) -> bytes:
        together.wait(timeout=10)
        raise RunError(f"{url}: no answer")

    monkeypatch.setattr(AnyStore, "read_range", read)
    reasons = [picture.reason for picture in pictures_of(rows_of(run)[:4], run)]
    assert len(reasons) == 4
    assert all(re.fullmatch(r"its tar is out of reach: .*\.tar: no answer", reason) for reason in reasons)


def test_pictures_of_a_bucket_are_read_by_range(finished: Path, bucket: str) -> None:
    """As from a folder; a tar that became shorter has changed."""
    run = open_run(str(finished))
    row = rows_of(run).to_pylist()[0]
    tar = next(task.shard.url for task in run.tasks if task.shard.name == row["shard"])
    client = boto3.client("s3")
    client.upload_file(tar, bucket, "a.tar")
    client.put_object(Bucket=bucket, Key="short.tar", Body=b"short")
    here, there = picture_of(row, tar, run.job), picture_of(row, f"s3://{bucket}/a.tar", run.job)
    assert here.image is not None
    assert there.image is not None
    assert here.image.tobytes() == there.image.tobytes()
    assert picture_of(row, f"s3://{bucket}/short.tar", run.job) == (None, "its tar has changed since")
    assert "does not exist" in picture_of(row, f"s3://{bucket}/gone.tar", run.job).reason
