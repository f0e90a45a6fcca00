"""What the rows of a run add up to, and whether _SUCCESS says the same.

Not covered: whether the rows themselves are right (rows.py).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from smoothcert.pipeline.verify.entries import SUCCESS, check_success_entries
from smoothcert.pipeline.verify.findings import MISSING_FILE, Finding, shown
from smoothcert.pipeline.verify.record import (
    CheckedRun,
    RecordedJob,
    RecordedMasks,
    Success,
    SuccessRecord,
    same_json,
)

MAX_COLUMNS = ("max_certified_patch", "max_margin_certified_patch")
CERTIFIED_COLUMNS = ("recovery_certified", "recovery_published", "detection_certified")
"""Of masks, in place of the max columns."""


@dataclass(frozen=True)
class Figures:
    """What the rows amount to; shares are of all rows. An accuracy without labels is None.

    Attributes:
        status: rows of each status.
        labels: rows with a usable label; None in a job without labels.
        certified: entries as in _SUCCESS, for the patches of the job, or for the threat of its masks.
    """

    status: dict[str, int]
    labels: int | None
    clean_accuracy: float | None
    smoothed_accuracy: float | None
    certified: tuple[dict[str, Any], ...]


class Counted(Protocol):
    """The columns of a row that are counted."""

    @property
    def status(self) -> str: ...
    @property
    def label(self) -> int | None: ...
    @property
    def clean_prediction(self) -> int | None: ...
    @property
    def prediction(self) -> int | None: ...
    @property
    def max_certified_patch(self) -> int | None: ...
    @property
    def max_margin_certified_patch(self) -> int | None: ...
    @property
    def recovery_certified(self) -> bool | None: ...
    @property
    def recovery_published(self) -> bool | None: ...
    @property
    def detection_certified(self) -> bool | None: ...


@dataclass
class Totals:
    """Rows counted.

    Attributes:
        labels: rows with a label.
        status: rows of each status.
        clean, smoothed: rows whose prediction is right; without labels, `smoothed` counts rows with a prediction.
        largest: the rows counted in `smoothed`, by name and value of each max column.
        holding: rows counted in `smoothed` for which each column of recovery holds, and rows for which detection does;
            with labels, those whose whole image is classified right.
    """

    rows: int = 0
    labels: int = 0
    status: Counter[str] = field(default_factory=Counter)
    clean: int = 0
    smoothed: int = 0
    largest: Counter[tuple[str, int]] = field(default_factory=Counter)
    holding: Counter[str] = field(default_factory=Counter)

    def add(self, row: Counted, *, labelled: bool) -> None:
        """Count one more row."""
        self.rows += 1
        self.labels += row.label is not None
        self.status[row.status] += 1
        self.clean += row.label is not None and row.clean_prediction == row.label
        if row.prediction is not None and (not labelled or row.prediction == row.label):
            self.smoothed += 1
            self.largest["max_certified_patch", row.max_certified_patch or 0] += 1
            self.largest["max_margin_certified_patch", row.max_margin_certified_patch or 0] += 1
            self.holding["recovery_certified"] += bool(row.recovery_certified)
            self.holding["recovery_published"] += bool(row.recovery_published)
        if not labelled or row.clean_prediction == row.label:
            self.holding["detection_certified"] += bool(row.detection_certified)

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.rows + other.rows,
            self.labels + other.labels,
            self.status + other.status,
            self.clean + other.clean,
            self.smoothed + other.smoothed,
            self.largest + other.largest,
            self.holding + other.holding,
        )

    def share(self, count: int) -> float:
        return count / self.rows if self.rows else 0.0

    def certified(self, job: RecordedJob) -> tuple[dict[str, Any], ...]:
        """The entries of `certified` that _SUCCESS should have."""
        if isinstance(job.ablation, RecordedMasks):
            return (self._certified_by_masks(job, job.ablation),)
        return tuple(self.certified_square(side, labelled=job.labelled) for side in job.sides)

    def _certified_by_masks(self, job: RecordedJob, masks: RecordedMasks) -> dict[str, Any]:
        exact, published, detection = (
            None if job.labelled and not self.labels else self.share(self.holding[column])
            for column in CERTIFIED_COLUMNS
        )
        return {
            "patch": masks.patch and list(masks.patch),
            "pixels": None if masks.patch else masks.threat["pixels"],
            "patches": masks.threat_patches,
            "exact": exact,
            "published": published,
            "detection": detection if job.clean else None,
        }

    def certified_square(self, side: int, *, labelled: bool) -> dict[str, Any]:
        """The entry of `certified` that _SUCCESS should have for squares of this side, in a run without masks."""
        if labelled and not self.labels:
            return {"patch": [side, side], "exact": None, "margin": None}
        exact, margin = (self.share(self._holding(column, side)) for column in MAX_COLUMNS)
        return {"patch": [side, side], "exact": exact, "margin": margin}

    def _holding(self, column: str, side: int) -> int:
        """Rows whose largest square has at least this side."""
        return sum(rows for (name, largest), rows in self.largest.items() if name == column and largest >= side)

    def figures(self, job: RecordedJob) -> Figures:
        """What the rows amount to in a run of this job."""
        clean, smoothed = (self.share(count) if self.labels else None for count in (self.clean, self.smoothed))
        return Figures(
            dict(self.status),
            self.labels if job.labelled else None,
            clean if job.clean else None,
            smoothed,
            self.certified(job),
        )


def check_success(
    run: CheckedRun,
    success: Success,
    published: Collection[str],
    totals: Totals | None,
    adopted_from: Mapping[str, int] | None,
) -> Iterator[Finding]:
    """_SUCCESS against the files and the rows.

    Args:
        run: the run.
        success: its _SUCCESS, which exists.
        published: names of the files that are there.
        totals: of all files of the run; None if not all could be read.
        adopted_from: number of files by the run that they were taken over from; None if a file says it wrongly.
    """
    yield from (Finding(name, MISSING_FILE) for name in run.shards if name not in published)
    if success.record is None:
        yield Finding(SUCCESS, "is damaged, expected a JSON object with the hashes of the files")
        return
    for name in sorted(success.record.files.keys() - run.shards.keys()):
        yield Finding(SUCCESS, f"names {name}, which belongs to no shard", "files")
    yield from check_success_entries(success.record.model_extra or {})
    if totals is None:
        return
    for name, found, given in _compared(run, success.record, totals):
        if not same_json(found, given):
            yield Finding(SUCCESS, f"is {shown(found)}, the rows give {shown(given)}", name)
    recorded = (success.record.model_extra or {}).get("adopted_from", {})  # an older run lacks it
    if adopted_from is not None and not same_json(recorded, adopted_from):
        yield Finding(SUCCESS, f"is {shown(recorded)}, the files give {shown(adopted_from)}", "adopted_from")


def _compared(run: CheckedRun, success: SuccessRecord, totals: Totals) -> Iterator[tuple[str, Any, Any]]:
    """Name, recorded value and counted value of each figure."""
    figures = totals.figures(run.job)
    expected = {"rows": totals.rows, "images": totals.rows, "shards": len(run.shards), "status": figures.status}
    expected |= {"clean_accuracy": figures.clean_accuracy, "smoothed_accuracy": figures.smoothed_accuracy}
    recorded = success.model_extra or {}
    if "bad_labels" in recorded:
        expected["bad_labels"] = figures.status.get("label_error", 0)
    for name, value in expected.items():
        yield name, recorded.get(name), value
    if isinstance(run.job.ablation, RecordedMasks):
        yield "certified", success.certified, list(figures.certified)
        return
    entries = success.certified if isinstance(success.certified, list) else [success.certified]
    for entry in entries:
        match entry:
            case {"patch": [int(side), _]} if type(side) is int:
                yield "certified", entry, totals.certified_square(side, labelled=run.job.labelled)
            case _:
                yield "certified", entry, {"patch": "of two equal sides"}
