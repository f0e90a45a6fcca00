"""The figures of a run, read from its published files, and the table that shows them.

Certificates of squares follow from the two max columns, because a certificate implies that of every smaller
square; so the patches of the table can change without a new run.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from smoothcert.manifests.job import Job
from smoothcert.pipeline.console.looks import digits, facts, number_of, percent, plain
from smoothcert.workers.runs.environment import environment_of
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.tars.label_counts import LabelCounts
from smoothcert.workers.tars.tar_headers import LeftOut

_NUMBERS = ["label", "clean_prediction", "prediction", "max_certified_patch", "max_margin_certified_patch"]
_LISTED = 10  # suffixes in a message
_COLUMNS = ["key", "status", "error", *_NUMBERS]


@dataclass(frozen=True)
class CertifiedShare:
    """A square patch and the share of images certified against it by either rule; in a labelled job of those that are
    right, too, or None where no label can be used.
    """

    patch: tuple[int, int]
    exact: float | None
    margin: float | None


@dataclass(frozen=True)
class Summary:
    """Figures of the published files; an accuracy is a count over all rows, those without votes included.

    Attributes:
        images: rows.
        status: rows of each status.
        labelled: whether the job has labels; else `certified` holds certified shares.
        labels: what the labels are like; of no images where the job has none.
        first_without_votes: key and reason of the first image that has none.
        files: SHA-256 of each published file.
        environments: number of files from each environment (alike.environment_of).
        rotated: images whose EXIF orientation says that the stored pixels are not upright.
        left_out: what the tars hold that is not in the run.
    """

    images: int
    status: dict[str, int]
    labelled: bool
    labels: LabelCounts
    clean_accuracy: float | None
    smoothed_accuracy: float | None
    certified: tuple[CertifiedShare, ...]
    without_votes: int
    first_without_votes: str | None
    files: dict[str, str]
    environments: dict[str, int]
    rotated: int
    left_out: LeftOut

    @property
    def unusable(self) -> int:
        """Images that say nothing: those without votes and, in a labelled job, those whose label is an error."""
        return self.without_votes + self.labels.bad

    def as_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "status": self.status,
            "clean_accuracy": self.clean_accuracy,
            "smoothed_accuracy": self.smoothed_accuracy,
            "bad_labels": self.labels.bad,
            "first_bad_label": self.labels.first_bad,
            "rotated_images": self.rotated,
            **self.left_out.as_json(),
            "certified": [
                {"patch": list(share.patch), "exact": share.exact, "margin": share.margin} for share in self.certified
            ],
        }


def summarise(run: Run, job: Job) -> Summary:
    """Read the published files of a run.

    Args:
        run: the run.
        job: of this run; its `patches` are shown.
    Raises:
        RunError: a file is damaged, or not one of this run's.
    """
    status, environments, counts = Counter[str](), Counter[str](), Counter[str]()
    files, labels, left_out, labelled = {}, LabelCounts(), LeftOut(), job.images.label is not None
    first_without_votes: str | None = None
    for file in read_published(run, _COLUMNS):  # one at a time: there may be a hundred thousand
        files[file.name] = file.sha256
        environments[environment_of(file.metadata)] += 1
        status.update(file.rows["status"].to_pylist())
        counts.update(_counts(file.rows, job.patches, labelled=labelled))
        counts["rotated_images"] += file.metadata.get("rotated_images", 0)
        left_out += LeftOut.of(file.metadata)
        first_without_votes = first_without_votes or _first_without_votes(file.rows)
        if labelled:
            labels += _label_counts(file.rows, job)
    meant = labels.usable or not labelled

    def share(what: str) -> float | None:
        return counts[what] / max(1, status.total()) if meant else None

    return Summary(
        images=status.total(),
        status=dict(status),
        labelled=labelled,
        labels=labels,
        clean_accuracy=share("clean") if labelled and job.clean else None,
        smoothed_accuracy=share("smoothed") if labelled else None,
        certified=tuple(
            CertifiedShare((side, side), share(f"exact {side}"), share(f"margin {side}")) for side in job.patches
        ),
        without_votes=counts["without votes"],
        first_without_votes=first_without_votes,
        files=files,
        environments=dict(environments),
        rotated=counts["rotated_images"],
        left_out=left_out,
    )


def left_out_notices(left_out: LeftOut) -> Iterator[str]:
    """What the tars hold that is not in the run, a line each; `plan` and `certify` print the same."""
    if left_out.system_members:
        were = "was" if left_out.system_members == 1 else "were"
        yield (
            f"{number_of(left_out.system_members, 'file')} that operating systems add to folders, such as ._NAME or "
            f".DS_Store, {were} skipped in the tars"
        )
    if count := left_out.samples_without_image:
        have, are = ("has", "is") if count == 1 else ("have", "are")
        suffixes = sorted(left_out.suffixes_without_image)
        more = f" and {len(suffixes) - _LISTED} more" if len(suffixes) > _LISTED else ""
        yield (
            f"{number_of(count, 'sample')} in the tars {have} no member that images.image names (suffixes: "
            f"{', '.join(suffixes[:_LISTED])}{more}) and {are} not in the run; add the suffixes that are images to "
            "images.image"
        )


def _first_without_votes(rows: pa.Table) -> str | None:
    first = rows.filter(pc.is_null(rows["prediction"]))[:1].to_pylist()
    return f"{first[0]['key']}: {first[0]['error']}" if first else None


def _label_counts(rows: pa.Table, job: Job) -> LabelCounts:
    bad = pc.if_else(pc.equal(rows["status"], "label_error"), rows["error"], pa.scalar(None, pa.string()))
    return LabelCounts.of(
        rows["key"].to_pylist(),
        bad.to_pylist(),
        _with_absent(rows["label"], -1),
        [_with_absent(rows[name], -1) for name in ("prediction", "clean_prediction")],
        images=job.images,
        classes=job.model.classes,
    )


def _counts(rows: pa.Table, patches: Sequence[int], *, labelled: bool) -> dict[str, int]:
    """How many rows are right, and certified at each side."""
    label, clean_prediction, prediction, exact, margin = (
        _with_absent(rows[name], absent) for name, absent in zip(_NUMBERS, (-1, -2, -2, -1, -1), strict=True)
    )
    right = prediction == label if labelled else prediction >= 0
    kinds = {"clean": clean_prediction == label, "smoothed": prediction == label, "without votes": prediction < 0}
    for side in patches:
        kinds |= {f"exact {side}": right & (exact >= side), f"margin {side}": right & (margin >= side)}
    return {name: int(rows_of_kind.sum()) for name, rows_of_kind in kinds.items()}


def table_of(summary: Summary, job: Job, title: str, images_per_second: float | None) -> Table:
    """What is printed at the end of a run; an accuracy that does not exist is a dash."""
    table = facts(title, columns=2)
    errors = {status: count for status, count in summary.status.items() if status != "ok"}
    kinds = ", ".join(f"{count:,} {status}" for status, count in sorted(errors.items()))
    table.add_row("images", f"{summary.images:,}", "")
    table.add_row("errors", f"{sum(errors.values()):,}", kinds)
    if summary.without_votes:
        table.add_row("without votes", f"{summary.without_votes:,}", plain(str(summary.first_without_votes)))
    if summary.labels.bad:
        table.add_row("bad labels", f"{summary.labels.bad:,}", plain(str(summary.labels.first_bad)))
    if summary.rotated:
        treatment = "turned upright" if job.preprocess.orient else "taken as stored"
        table.add_row("rotated by EXIF", f"{summary.rotated:,}", treatment)
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
