"""The most fragile and the sturdiest images of a run: their pictures, their votes, and where a patch hurts most.

Fragile and sturdy are right predictions (without labels: any) by the largest certified square, then by the lead in
votes. Pictures are read by range from the tars, and shown only if their SHA-256 is that of the run.

Not covered: how an image is shown (page.py).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from smoothcert.manifests.errors import SmoothcertError
from smoothcert.manifests.job import Job
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.certificates.rules import Ballots, slack_if_touched
from smoothcert.workers.iteration import map_ahead
from smoothcert.workers.runs.published import PublishedFile
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import matrix_of
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars.images import decode, image_of

_COLUMNS = [
    *("shard", "key", "image_offset", "image_bytes", "sha256", "label", "prediction", "count", "runner_up_count"),
    *("votes", "margins", "max_certified_patch"),
]


class Picture(NamedTuple):
    """What the network saw of an image, or why it cannot be shown."""

    image: Image.Image | None
    reason: str


@dataclass(frozen=True)
class Exhibit:
    """One image.

    Attributes:
        shard, key: which image.
        label: None without one.
        prediction: of the smoothed classifier.
        largest: side of the largest certified square.
        votes: [ablations].
        margins: [ablations].
        side: of the patch whose weakest place is shown.
        top, left: of that place, in pixels.
        slack: in votes; below 0: a patch there can change the prediction.
        becomes: the class that it would become first.
        is_grid: whether the ablations lie in rows and columns, as blocks do.
        picture: of the image.
    """

    shard: str
    key: str
    label: int | None
    prediction: int
    largest: int
    votes: NDArray[np.integer]
    margins: NDArray[np.floating]
    side: int
    top: int
    left: int
    slack: int
    becomes: int
    is_grid: bool
    picture: Picture


@dataclass
class Extremes:
    """Keeps the most fragile and the sturdiest rows.

    Args:
        count: how many of each.
        labelled: whether only right predictions count.
    """

    count: int
    labelled: bool
    fragile: pa.Table | None = None
    sturdy: pa.Table | None = None

    def add(self, file: PublishedFile) -> None:
        """Look at the rows of a file."""
        rows = file.rows
        right = pc.is_valid(rows["votes"])
        if self.labelled:
            right = pc.and_(right, pc.fill_null(pc.equal(rows["label"], rows["prediction"]), False))
        right = rows.filter(right)
        lead = pc.subtract(right["count"], right["runner_up_count"])
        chosen = right.select(_COLUMNS).append_column("lead", lead)
        self.fragile = self._first([self.fragile, chosen], "ascending")
        self.sturdy = self._first([self.sturdy, chosen], "descending")

    def _first(self, tables: list[pa.Table | None], order: str) -> pa.Table:
        rows = pa.concat_tables([table for table in tables if table is not None])
        names = [("max_certified_patch", order), ("lead", order), ("sha256", "ascending")]  # the hash breaks ties
        places = pc.select_k_unstable(rows, self.count, names) if len(rows) else pa.array([], pa.int64())
        return rows.take(places)


def exhibits_of(rows: pa.Table | None, run: Run, side: int) -> Iterator[Exhibit]:
    """The images of rows, with votes each, in order; `side` is that of the patch whose weakest place is shown."""
    if rows is None or not len(rows):
        return
    job = run.job
    crop = job.preprocess.crop
    ablations, family = ablations_of(job.ablation, crop, crop), family_of(job.ablation)
    ballots = Ballots.of(matrix_of(rows["votes"]), classes=job.model.classes)
    answer = next(iter(family.rules.values()))(ballots, ablations, Threat(side, side))
    shards = {task.shard.name: task.shard for task in run.tasks}
    margins = matrix_of(rows["margins"])
    listed = rows.drop_columns(["votes", "margins"]).to_pylist()
    # All at once: an unreachable server answers each read only after half a minute.
    read = map_ahead(lambda row: _read(row, shards[row["shard"]].url, job), listed, threads=len(rows), count=len(rows))
    for place, (row, data) in enumerate(zip(listed, read, strict=True)):
        top, left = answer.places[place, 0].tolist()
        touched = ablations.touched_at(side, side, top, left)
        slack, rival = slack_if_touched(ballots.of_images(slice(place, place + 1)), touched)
        yield Exhibit(
            shard=row["shard"],
            key=row["key"],
            label=row["label"],
            prediction=row["prediction"],
            largest=row["max_certified_patch"],
            votes=ballots.votes[place],
            margins=margins[place],
            side=side,
            top=top,
            left=left,
            slack=int(slack[0]),
            becomes=int(rival[0]),
            is_grid=job.ablation.kind == "block",
            picture=_picture(data, row["sha256"], job),
        )


def picture_of(row: dict[str, Any], tar: str, job: Job) -> Picture:
    """Read an image from its tar, as the network saw it before any ablation."""
    return _picture(_read(row, tar, job), row["sha256"], job)


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
