"""Images whose prediction a patch changed: the picture with the patch on it, and the patch itself.

Not covered: the attack (workers/studies/patch_attack.py); how many images fell (pipeline/bracket.py).
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from smoothcert.pipeline.pages.pictures import PICTURE_COLUMNS, Box, Picture, pictures_of
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.studies.study import StoredStudy

_ROW = ["shard", "index", "key", "label", "prediction", "becomes", "slack", "place_slack", "attack", "top", "left"]


@dataclass(frozen=True)
class Success:
    """A patch that changed a prediction.

    Attributes:
        shard, key: which image.
        label: None without one.
        prediction: of the smoothed classifier without the patch.
        becomes: its prediction with the patch.
        slack: of the certificate at the place of the patch, in votes; below 0: it does not hold there.
        attack: what found the patch, such as `apgd-ce`.
        box: where the patch lies.
        patch: the patch.
        picture: the image with the patch on it, or why it cannot be shown.
    """

    shard: str
    key: str
    label: int | None
    prediction: int
    becomes: int
    slack: int
    attack: str
    box: Box
    patch: Image.Image
    picture: Picture


def successes_of(run: Run, studies: Sequence[StoredStudy], count: int) -> tuple[Success, ...]:
    """Images that fell, `count` at most; those whose certificate was nearest to holding come first.

    If there are labels, the prediction was right without the patch.

    Args:
        run: whose images were attacked.
        studies: finished attacks with patches.
        count: how many images at most.
    Raises:
        RunError: a file is damaged.
    """
    chosen = _chosen(run, studies, count)
    if not chosen:
        return ()
    return tuple(
        _success(row, picture) for row, picture in zip(chosen, pictures_of(_rows(run, chosen), run), strict=True)
    )


def _chosen(run: Run, studies: Sequence[StoredStudy], count: int) -> list[dict[str, Any]]:
    """The rows of the images; of an image that fell to several attacks, the first."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for study in studies:
        rows = study.rows()
        fell = pc.fill_null(rows["fell"], False)
        if run.job.images.label is not None:
            fell = pc.and_(fell, pc.fill_null(pc.equal(rows["label"], rows["prediction"]), False))
        for row in rows.filter(fell).select([*_ROW, "patch"]).to_pylist():
            found.setdefault((row["shard"], row["index"]), row)
    return sorted(found.values(), key=lambda row: (-row["slack"], row["shard"], row["index"]))[:count]


def _rows(run: Run, chosen: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The run's rows about these images, in their order."""
    files = {task.shard.name: task.file_name for task in run.tasks}
    names = sorted({files[row["shard"]] for row in chosen})
    indices = pa.array({row["index"] for row in chosen}, pa.int32())
    tables = [file.rows for file in read_published(run, ["index", *PICTURE_COLUMNS], names)]
    rows = pa.concat_tables([table.filter(pc.is_in(table["index"], value_set=indices)) for table in tables])
    images = zip(rows["shard"].to_pylist(), rows["index"].to_pylist(), strict=True)
    places = {image: place for place, image in enumerate(images)}
    return rows.take([places[row["shard"], row["index"]] for row in chosen])


def _success(row: Mapping[str, Any], picture: Picture) -> Success:
    patch = Image.open(io.BytesIO(row["patch"]))
    box = Box(row["top"], row["left"], patch.height, patch.width)
    if picture.image is not None:
        image = picture.image.copy()
        image.paste(patch, (box.left, box.top))
        picture = Picture(image, "")
    return Success(
        shard=row["shard"],
        key=row["key"],
        label=row["label"],
        prediction=row["prediction"],
        becomes=row["becomes"],
        slack=row["place_slack"],
        attack=row["attack"],
        box=box,
        patch=patch,
        picture=picture,
    )
