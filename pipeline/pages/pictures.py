"""The images themselves: read by range from the tars, and shown only if their SHA-256 is that of the run."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
from PIL import Image

from smoothcert.manifests.errors import SmoothcertError
from smoothcert.manifests.job import Job
from smoothcert.workers.iteration import map_ahead
from smoothcert.workers.runs.run import Run
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars.images import decode, image_of

PICTURE_COLUMNS = ["shard", "image_offset", "image_bytes", "sha256"]


class Box(NamedTuple):
    """Where a patch lies on a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Picture(NamedTuple):
    """What the network saw of an image, or why it cannot be shown."""

    image: Image.Image | None
    reason: str


def pictures_of(rows: pa.Table, run: Run) -> Iterator[Picture]:
    """The pictures of rows of a run, with PICTURE_COLUMNS, in order."""
    listed = rows.select(PICTURE_COLUMNS).to_pylist()
    if run.job.preprocess.decoder != "pillow":
        yield from [_other_decoder(run.job)] * len(listed)
        return
    if not listed:
        return
    tars = {task.shard.name: task.shard.url for task in run.tasks}
    # All at once: an unreachable server answers each read only after half a minute.
    read = map_ahead(
        lambda row: _read(row, tars[row["shard"]], run.job), listed, threads=len(listed), count=len(listed)
    )
    for row, data in zip(listed, read, strict=True):
        yield _picture(data, row["sha256"], run.job)


def picture_of(row: dict[str, Any], tar: str, job: Job) -> Picture:
    """Read an image from its tar, as the network saw it before any ablation."""
    if job.preprocess.decoder != "pillow":
        return _other_decoder(job)
    return _picture(_read(row, tar, job), row["sha256"], job)


def _other_decoder(job: Job) -> Picture:
    return Picture(None, f"its run decodes with {job.preprocess.decoder}, pages with Pillow")


def _read(row: dict[str, Any], tar: str, job: Job) -> bytes | SmoothcertError:
    try:
        return AnyStore(job.storage).read_range(tar, row["image_offset"], row["image_bytes"])
    except SmoothcertError as error:
        return error


def _picture(data: bytes | SmoothcertError, sha256: bytes, job: Job) -> Picture:
    if isinstance(data, SmoothcertError):
        return Picture(None, f"its tar is out of reach: {data}")
    if hashlib.sha256(data).digest() != sha256:
        return Picture(None, "its tar has changed since")
    decoded = decode(data, job.preprocess)
    if decoded.pixels is None:
        return Picture(None, f"it cannot be decoded: {decoded.error}")
    return Picture(image_of(decoded.pixels), "")
