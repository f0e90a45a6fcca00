"""Images that lost a certificate, to show: the votes of both runs, side by side, and the picture.

Not covered: which images these are (comparison.py), how they are shown (page.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.pipeline.compare.comparison import Comparison, clearest_changes
from smoothcert.pipeline.compare.pairs import LOST, names_of
from smoothcert.pipeline.pages.exhibits import EXHIBIT_COLUMNS, Exhibit, exhibits_of
from smoothcert.pipeline.pages.pictures import PICTURE_COLUMNS, Picture, pictures_of
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run

_COLUMNS = sorted({*EXHIBIT_COLUMNS, *PICTURE_COLUMNS, "status"})


@dataclass(frozen=True)
class Loss:
    """An image that lost a certificate.

    Attributes:
        base: its votes before.
        new: its votes now; None if it has none.
        status: of the image in the new run.
        picture: from the tars of the new run, or else from those of the base.
    """

    base: Exhibit
    new: Exhibit | None
    status: str
    picture: Picture


def losses_of(comparison: Comparison, count: int) -> list[Loss]:
    """The clearest losses, `count` at most, in the order of clearest_changes.

    Raises:
        RunError: a file is damaged.
    """
    if not comparison.certified:
        return []
    lost = clearest_changes(comparison, LOST, of_one_patch=True).slice(0, count)
    if not len(lost):
        return []
    patches = list(zip(lost["patch_height"].to_pylist(), lost["patch_width"].to_pylist(), strict=True))
    base, new = _rows(comparison.base, lost), _rows(comparison.new, lost)
    voted = new["votes"].is_valid()
    exhibits = exhibits_of(new.filter(voted), comparison.new, list(compress(patches, voted.to_pylist())))
    after = {(one.shard, one.key): one for one in exhibits}
    return [
        Loss(before, after.get((before.shard, before.key)), status, picture)
        for before, status, picture in zip(
            exhibits_of(base, comparison.base, patches),
            new["status"].to_pylist(),
            _pictures(comparison, base, new),
            strict=True,
        )
    ]


def _rows(run: Run, images: pa.Table) -> pa.Table:
    """The rows of a run about these images, in their order."""
    files = {task.shard.name: task.file_name for task in run.tasks}
    names = sorted({files[shard] for shard in images["shard"].to_pylist()})
    keys = images["key"].combine_chunks()
    tables = [file.rows for file in read_published(run, _COLUMNS, names)]
    rows = pa.concat_tables([table.filter(pc.is_in(table["key"], value_set=keys)) for table in tables])
    return rows.take(pc.index_in(names_of(images), value_set=names_of(rows).combine_chunks()))


def _pictures(comparison: Comparison, base: pa.Table, new: pa.Table) -> Sequence[Picture]:
    """The bytes are the same in both runs, but the tars of one may be out of reach."""
    pictures = list(pictures_of(new, comparison.new))
    if all(picture.image is not None for picture in pictures):
        return pictures
    others = pictures_of(base, comparison.base)
    return [other if picture.image is None else picture for picture, other in zip(pictures, others, strict=True)]
