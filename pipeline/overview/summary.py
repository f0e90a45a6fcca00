"""The figures of a run, read from its published files.

Certificates of squares follow from the two max columns, because a certificate implies that of every smaller square. So
the patches of the table can change without a new run. Masks have one threat, and a column for each of its certificates.

Not covered: how the figures look (tables.py), and what else a reader must know (notices.py).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.manifests.ablation import Area, MaskAblation
from smoothcert.manifests.job import Job
from smoothcert.workers.runs.environment import environment_of
from smoothcert.workers.runs.published import PublishedFile, read_figures
from smoothcert.workers.runs.records import AnyCertifiedRecord, CertifiedRecord, FiguresRecord, MaskCertifiedRecord
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import numbers_of
from smoothcert.workers.tars.label_counts import LabelCounts
from smoothcert.workers.tars.tar_headers import LeftOut

_CLASSES = ["label", "clean_prediction", "prediction"]
_SQUARES = {"exact": "max_certified_patch", "margin": "max_margin_certified_patch"}
_OWN_THREAT = {"exact": "recovery_certified", "published": "recovery_published", "detection": "detection_certified"}


@dataclass(frozen=True)
class Summary:
    """Figures of the published files; an accuracy is a share of all rows, those without votes included.

    Attributes:
        images: number of rows.
        status: number of rows of each status.
        labelled: whether the job has labels; otherwise `certified` holds certified shares.
        labels: what the labels are like; empty if the job has none.
        clean_accuracy, smoothed_accuracy: None without usable labels.
        certified: shares for each patch of the job, or against the threat of its masks.
        without_votes: number of rows without votes.
        first_without_votes: key and reason of the first of these.
        files: SHA-256 of each published file.
        environments: number of files from each environment (environment_of).
        rotated: images whose EXIF orientation says that the stored pixels are not upright.
        left_out: what the tars hold that is not in the run.
        adopted_from: number of files whose rows were taken over, by the id of the run that they come from.
    """

    images: int
    status: dict[str, int]
    labelled: bool
    labels: LabelCounts
    clean_accuracy: float | None
    smoothed_accuracy: float | None
    certified: tuple[AnyCertifiedRecord, ...]
    without_votes: int
    first_without_votes: str | None
    files: dict[str, str]
    environments: dict[str, int]
    rotated: int
    left_out: LeftOut
    adopted_from: dict[str, int]

    @property
    def unusable(self) -> int:
        """Images that say nothing: those without votes and, in a labelled job, those whose label is an error."""
        return self.without_votes + self.labels.bad

    def figures(self) -> FiguresRecord:
        """The figures that _SUCCESS and `certify --json` give."""
        return FiguresRecord(
            images=self.images,
            status=self.status,
            clean_accuracy=self.clean_accuracy,
            smoothed_accuracy=self.smoothed_accuracy,
            bad_labels=self.labels.bad,
            first_bad_label=self.labels.first_bad,
            rotated_images=self.rotated,
            system_members=self.left_out.system_members,
            samples_without_image=self.left_out.samples_without_image,
            suffixes_without_image=tuple(sorted(self.left_out.suffixes_without_image)),
            certified=self.certified,
        )


def summarise(run: Run, job: Job) -> Summary:
    """Read the published files of a run.

    Args:
        run: the run.
        job: of this run; its `patches` are shown.
    Raises:
        RunError: a file is damaged, or belongs to another run.
    """
    sums = _Sums()
    certified = _OWN_THREAT if isinstance(job.ablation, MaskAblation) else _SQUARES
    columns = ["key", "status", "error", *_CLASSES, *certified.values()]
    for file in read_figures(run, columns):  # one at a time: there may be a hundred thousand
        sums.add(file, job)
    return _summary_of(sums, job)


@dataclass
class _Sums:
    """Counts over files. `counts` holds the numerators of the shares; the other attributes are as in Summary."""

    status: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    labels: LabelCounts = field(default_factory=LabelCounts)
    first_without_votes: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    environments: Counter[str] = field(default_factory=Counter)
    rotated: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    adopted_from: Counter[str] = field(default_factory=Counter)

    def add(self, file: PublishedFile, job: Job) -> None:
        labelled = job.images.label is not None
        self.files[file.name] = file.sha256
        self.environments[environment_of(file.metadata.environment)] += 1
        self.status.update(file.rows["status"].to_pylist())
        self.counts.update(_counts(file.rows, job))
        self.rotated += file.metadata.rotated_images
        self.left_out += file.metadata.left_out
        if file.metadata.adopted_from is not None:
            self.adopted_from[file.metadata.adopted_from.run_id] += 1
        self.first_without_votes = self.first_without_votes or _first_without_votes(file.rows)
        if labelled:
            self.labels += _label_counts(file.rows, job)


def _summary_of(sums: _Sums, job: Job) -> Summary:
    images, labelled = sums.status.total(), job.images.label is not None
    has_shares = sums.labels.usable or not labelled

    def share(what: str) -> float | None:
        return sums.counts[what] / max(1, images) if has_shares else None

    return Summary(
        images=images,
        status=dict(sums.status),
        labelled=labelled,
        labels=sums.labels,
        clean_accuracy=share("clean") if labelled and job.clean else None,
        smoothed_accuracy=share("smoothed") if labelled else None,
        certified=tuple(_certified(job, share)),
        without_votes=sums.counts["without votes"],
        first_without_votes=sums.first_without_votes,
        files=sums.files,
        environments=dict(sums.environments),
        rotated=sums.rotated,
        left_out=sums.left_out,
        adopted_from=dict(sums.adopted_from),
    )


def _certified(job: Job, share: Callable[[str], float | None]) -> Iterator[AnyCertifiedRecord]:
    """The shares of certified images: for each patch of the job, or against the threat of its masks."""
    if isinstance(job.ablation, MaskAblation):
        yield MaskCertifiedRecord(
            patch=None if isinstance(job.ablation.threat, Area) else job.ablation.threat,
            pixels=job.ablation.threat.pixels if isinstance(job.ablation.threat, Area) else None,
            patches=job.ablation.threat_patches,
            exact=share("exact"),
            published=share("published"),
            detection=share("detection") if job.clean else None,
        )
        return
    for side in job.patches:
        yield CertifiedRecord(patch=(side, side), exact=share(f"exact {side}"), margin=share(f"margin {side}"))


def _first_without_votes(rows: pa.Table) -> str | None:
    first = rows.filter(pc.is_null(rows["prediction"]))[:1].to_pylist()
    return f"{first[0]['key']}: {first[0]['error']}" if first else None


def _label_counts(rows: pa.Table, job: Job) -> LabelCounts:
    bad = pc.if_else(pc.equal(rows["status"], "label_error"), rows["error"], pa.scalar(None, pa.string()))
    return LabelCounts.of(
        rows["key"].to_pylist(),
        bad.to_pylist(),
        numbers_of(rows["label"]),
        [numbers_of(rows[name]) for name in ("prediction", "clean_prediction")],
        images=job.images,
        classes=job.model.classes,
    )


def _counts(rows: pa.Table, job: Job) -> dict[str, int]:
    """How many rows are right, and certified against each patch."""
    label, clean_prediction, prediction = (
        numbers_of(rows[name], absent) for name, absent in zip(_CLASSES, (-1, -2, -2), strict=True)
    )
    kinds = {"clean": clean_prediction == label, "smoothed": prediction == label, "without votes": prediction < 0}
    labelled = job.images.label is not None
    right = prediction == label if labelled else prediction >= 0
    if isinstance(job.ablation, MaskAblation):
        right_whole = clean_prediction == label if labelled else clean_prediction >= 0
        for name, column in _OWN_THREAT.items():
            holds = pc.fill_null(rows[column], False).to_numpy()
            kinds[name] = holds & (right_whole if name == "detection" else right)
    else:
        largest = {name: numbers_of(rows[column]) for name, column in _SQUARES.items()}
        for side, (name, sides) in product(job.patches, largest.items()):
            kinds[f"{name} {side}"] = right & (sides >= side)
    return {name: int(rows_of_kind.sum()) for name, rows_of_kind in kinds.items()}
