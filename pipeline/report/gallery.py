"""The most fragile and the sturdiest images of a run.

They are right predictions (without labels: any) by the largest certified square, then by the lead in votes, or by the
number of votes that differ from the prediction of masks.

Not covered: what is shown of an image (pipeline/pages), and how (page.py).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.manifests.ablation import MaskAblation
from smoothcert.manifests.rules import Claim, RuleName
from smoothcert.pipeline.pages.exhibits import EXHIBIT_COLUMNS, Exhibit, exhibits_of
from smoothcert.pipeline.pages.pictures import PICTURE_COLUMNS, Picture, pictures_of
from smoothcert.pipeline.pages.rows import Rows
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.run import Run

_COLUMNS = sorted({*EXHIBIT_COLUMNS, *PICTURE_COLUMNS})


class Entry(NamedTuple):
    """An image of the gallery."""

    exhibit: Exhibit
    picture: Picture


@dataclass
class Extremes:
    """Keeps the most fragile and the sturdiest rows.

    Args:
        count: how many of each, at most.
        labelled: whether only right predictions count.
    """

    count: int
    labelled: bool
    _seen: int = 0
    _fragile: pa.Table | None = None
    _sturdy: pa.Table | None = None

    def add(self, judged: Rows) -> None:
        """Look at rows."""
        rows = judged.table
        right = pc.is_valid(rows["votes"])
        if self.labelled:
            right = pc.and_(right, pc.fill_null(pc.equal(rows["label"], rows["prediction"]), False))
        ordered = rows.select(_COLUMNS).append_column(
            "largest", pa.array(judged.largest_squares[RuleName.exact], pa.int32())
        )
        chosen = ordered.append_column("lead", _lead(judged)).filter(right)
        self._seen += len(chosen)
        self._fragile = self._first([self._fragile, chosen], "ascending")
        self._sturdy = self._first([self._sturdy, chosen], "descending")

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """The most fragile and the sturdiest rows, no row twice. At least one file was looked at."""
        assert self._fragile is not None
        assert self._sturdy is not None
        fragile = self._fragile.slice(0, (self._seen + 1) // 2)
        return fragile, self._sturdy.slice(0, self._seen - len(fragile))

    def _first(self, tables: list[pa.Table | None], order: str) -> pa.Table:
        rows = pa.concat_tables([table for table in tables if table is not None])
        names = [(name, order) for name in ("largest", "lead", "sha256")]  # the hash breaks ties
        places = pc.select_k_unstable(rows, self.count, names) if len(rows) else pa.array([], pa.int64())
        return rows.take(places)


def _lead(judged: Rows) -> pa.Array | pa.ChunkedArray:
    """[rows]: by how many votes the prediction leads; of masks, below 0, how many votes do not show it."""
    rows = judged.table
    if not isinstance(judged.job.ablation, MaskAblation):
        return pc.subtract(rows["count"], rows["runner_up_count"])
    differing = np.zeros(len(rows), np.int32)
    differing[judged.voted] = judged.answer(Threat(1, 1), Claim(rule=RuleName.published)).slack
    return pa.array(differing)


def entries_of(rows: pa.Table, run: Run, side: int) -> tuple[Entry, ...]:
    """The images of rows, in order, with the weakest place of a square patch."""
    exhibits = exhibits_of(rows, run, [(side, side)] * len(rows))
    return tuple(map(Entry, exhibits, pictures_of(rows, run)))
