"""The figures of a run, read from its published files, and the table that shows them.

Certificates of squares follow from the two max columns, because a certificate implies that of every smaller
square; so the patches of the table can change without a new run.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from pipeline.alike import environment_of
from pipeline.looks import digits, facts, percent
from pipeline.plan import Run
from pipeline.results import read_published

_COLUMNS = ["status", "label", "clean_prediction", "prediction", "max_certified_patch", "max_margin_certified_patch"]


@dataclass(frozen=True)
class CertifiedShare:
    """A square patch and the share of images certified against it by either rule (and right, with labels)."""

    patch: tuple[int, int]
    exact: float
    margin: float


@dataclass(frozen=True)
class Summary:
    """Figures of the published files; an accuracy is a count over all rows, those without votes included.

    Attributes:
        images: rows.
        status: rows of each status.
        labelled: whether accuracies are meant; without labels `certified` holds certified shares.
        files: SHA-256 of each published file.
        environments: number of files from each environment (alike.environment_of).
    """

    images: int
    status: dict[str, int]
    labelled: bool
    clean_accuracy: float | None
    smoothed_accuracy: float | None
    certified: tuple[CertifiedShare, ...]
    without_votes: int
    files: dict[str, str]
    environments: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "status": self.status,
            "clean_accuracy": self.clean_accuracy,
            "smoothed_accuracy": self.smoothed_accuracy,
            "certified": [
                {"patch": list(share.patch), "exact": share.exact, "margin": share.margin} for share in self.certified
            ],
        }


def summarise(run: Run, patches: Sequence[int], *, labelled: bool, clean: bool) -> Summary:
    """Read the published files of a run.

    Args:
        run: the run.
        patches: sides of the squares to show, in pixels.
        labelled: whether the job has labels.
        clean: whether whole images were classified too.
    Raises:
        RunError: a file is damaged, or not one of this run's.
    """
    status, environments, counts = Counter[str](), Counter[str](), Counter[str]()
    files = {}
    for file in read_published(run, _COLUMNS):  # one at a time: there may be a hundred thousand
        files[file.name] = file.sha256
        environments[environment_of(file.metadata)] += 1
        status.update(file.rows["status"].to_pylist())
        counts.update(_counts(file.rows, patches, labelled=labelled))

    def share(what: str) -> float:
        return counts[what] / max(1, status.total())

    return Summary(
        images=status.total(),
        status=dict(status),
        labelled=labelled,
        clean_accuracy=share("clean") if labelled and clean else None,
        smoothed_accuracy=share("smoothed") if labelled else None,
        certified=tuple(
            CertifiedShare((side, side), share(f"exact {side}"), share(f"margin {side}")) for side in patches
        ),
        without_votes=counts["without votes"],
        files=files,
        environments=dict(environments),
    )


def _counts(rows: pa.Table, patches: Sequence[int], *, labelled: bool) -> dict[str, int]:
    """How many rows are right, and certified at each side."""
    label, clean_prediction, prediction, exact, margin = (
        _with_absent(rows[name], absent) for name, absent in zip(_COLUMNS[1:], (-1, -2, -2, -1, -1), strict=True)
    )
    right = prediction == label if labelled else prediction >= 0
    kinds = {"clean": clean_prediction == label, "smoothed": prediction == label, "without votes": prediction < 0}
    for side in patches:
        kinds |= {f"exact {side}": right & (exact >= side), f"margin {side}": right & (margin >= side)}
    return {name: int(rows_of_kind.sum()) for name, rows_of_kind in kinds.items()}


def table_of(summary: Summary, title: str, images_per_second: float | None) -> Table:
    """What is printed at the end of a run; an accuracy that does not exist is a dash."""
    table = facts(title, columns=2)
    errors = {status: count for status, count in summary.status.items() if status != "ok"}
    kinds = ", ".join(f"{count:,} {status}" for status, count in sorted(errors.items()))
    table.add_row("images", f"{summary.images:,}", "")
    table.add_row("errors", f"{sum(errors.values()):,}", kinds)
    table.add_row("clean accuracy", percent(summary.clean_accuracy), "")
    table.add_row("smoothed accuracy", percent(summary.smoothed_accuracy), "")
    if summary.certified:
        table.add_section()
        table.add_row("certified accuracy" if summary.labelled else "certified share", "exact", "margin rule")
    for share in summary.certified:
        height, width = share.patch
        table.add_row(f"  patch {height} x {width}", percent(share.exact), percent(share.margin))
    if images_per_second is not None:
        table.add_section()
        table.add_row("images/s", digits(images_per_second), "")
    return table


def _with_absent(column: pa.ChunkedArray, absent: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    numbers: np.ndarray[Any, np.dtype[np.int64]] = column.cast(pa.int64()).fill_null(absent).to_numpy()
    return numbers
