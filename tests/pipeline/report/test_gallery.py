"""The images at either end, and their pictures: shown only if the tar still holds them."""

import hashlib
import io
import re
import tarfile
import threading
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.report.figures import COLUMNS
from smoothcert.pipeline.report.gallery import Exhibit, Extremes, exhibits_of, picture_of
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.judged_runs import CLASSES, image, judged_run


def extremes_of(path: str, count: int, *, labelled: bool = True) -> Extremes:
    extremes = Extremes(count, labelled)
    for file in read_published(open_run(path), COLUMNS):
        extremes.add(file)
    return extremes


def test_extremes_are_right_predictions_by_certificate_and_lead(tmp_path: Path) -> None:
    """Over all files; wrong ones and those without votes are none."""
    random = np.random.default_rng(0)
    votes = np.where(random.random((60, 12)) < random.random((60, 1)), 1, random.integers(0, CLASSES, (60, 12)))
    images = [image(str(number), one.tolist(), label=1) for number, one in enumerate(votes)]
    images[7] = image("7", None)
    run = judged_run(tmp_path, {"a.tar": images[:20], "b.tar": images[20:]})
    rows = [row for file in read_published(run, COLUMNS) for row in file.rows.to_pylist()]
    right = [
        (row["max_certified_patch"], row["count"] - row["runner_up_count"]) for row in rows if row["prediction"] == 1
    ]
    extremes = extremes_of(run.url, 5)
    for table, expected in ((extremes.fragile, sorted(right)), (extremes.sturdy, sorted(right, reverse=True))):
        assert table is not None
        found = list(zip(table["max_certified_patch"].to_pylist(), table["lead"].to_pylist(), strict=True))
        assert found == expected[:5]


def test_an_exhibit_says_what_happens_at_its_weakest_place(any_run: Path) -> None:
    """The votes there, all given to the class that it would become, change the prediction iff the slack is below 0."""
    run = open_run(str(any_run))
    extremes = extremes_of(run.url, 3, labelled=run.job.images.label is not None)
    crop = run.job.preprocess.crop
    ablations = ablations_of(run.job.ablation, crop, crop)
    shown: list[Exhibit] = [*exhibits_of(extremes.fragile, run, 2), *exhibits_of(extremes.sturdy, run, 2)]
    assert len(shown) == 6
    for one in shown:
        touched = ablations.touched_at(2, 2, one.top, one.left)
        after = np.bincount(np.where(touched, one.becomes, one.votes), minlength=run.job.model.classes).argmax()
        assert after == (one.becomes if one.slack < 0 else one.prediction)
        assert (one.slack >= 0) == (one.largest >= 2)
        assert one.picture.image is not None
        assert one.picture.image.size == (crop, crop)


def test_a_picture_is_that_of_the_tar(finished: Path) -> None:
    """The pixels that the network saw."""
    run = open_run(str(finished))
    row = next(row for file in read_published(run, COLUMNS) for row in file.rows.to_pylist())
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
    row = next(row for file in read_published(run, COLUMNS) for row in file.rows.to_pylist())
    tar = Path(next(task.shard.url for task in run.tasks if task.shard.name == row["shard"]))
    changed = bytearray(tar.read_bytes())
    changed[row["image_offset"] + 30] ^= 1
    (tmp_path / "changed.tar").write_bytes(changed)
    assert picture_of(row, str(tmp_path / "changed.tar"), run.job) == (None, "its tar has changed since")
    assert picture_of(row, str(tmp_path / "gone.tar"), run.job).reason.startswith("its tar is out of reach: ")


def test_a_picture_beyond_the_limit_is_not_decoded(finished: Path, tmp_path: Path) -> None:
    """A header that promises 100,000 x 100,000 pixels; the hash is right."""
    data = b"P6 100000 100000 255\n" + bytes(100)
    (tmp_path / "a.tar").write_bytes(data)
    row = {"image_offset": 0, "image_bytes": len(data), "sha256": hashlib.sha256(data).digest()}
    picture = picture_of(row, str(tmp_path / "a.tar"), open_run(str(finished)).job)
    assert picture.image is None
    assert picture.reason.startswith("it cannot be decoded: too_large")


@pytest.mark.parametrize("labelled", [True, False])
def test_without_a_right_prediction_there_is_no_exhibit(tmp_path: Path, labelled: bool) -> None:
    """Without labels every prediction counts."""
    images = {"shards": "unused", "label": "cls" if labelled else None}
    run = judged_run(tmp_path, {"a.tar": [image("0", [1] * 12, 0 if labelled else None)]}, images=images)
    extremes = extremes_of(run.url, 3, labelled=labelled)
    assert len(list(exhibits_of(extremes.fragile, run, 1))) == (0 if labelled else 1)


def test_pictures_are_read_at_the_same_time(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, 24 reads from an unreachable server would take 12 minutes."""
    extremes, run = extremes_of(str(finished), 4), open_run(str(finished))
    together = threading.Barrier(4)

    def read(_store: AnyStore, url: str, _start: int, _length: int) -> bytes:
        together.wait(timeout=10)
        raise RunError(f"{url}: no answer")

    monkeypatch.setattr(AnyStore, "read_range", read)
    reasons = [one.picture.reason for one in exhibits_of(extremes.fragile, run, 2)]
    assert len(reasons) == 4
    assert all(re.fullmatch(r"its tar is out of reach: .*\.tar: no answer", reason) for reason in reasons)


def test_pictures_of_a_bucket_are_read_by_range(finished: Path, bucket: str) -> None:
    """As from a folder; a tar that became shorter has changed."""
    run = open_run(str(finished))
    row = next(row for file in read_published(run, COLUMNS) for row in file.rows.to_pylist())
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
