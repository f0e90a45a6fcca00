"""What all images of a run say: accuracies, certificates by patch size, classes, errors, fragile votes.

One pass over the published files. Certificates of squares follow from the two max columns; of masks from the votes.

Not covered: what needs votes (sample.py, gallery.py).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smoothcert.manifests.ablation import MaskAblation
from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import Certificate, Claim, RuleName
from smoothcert.pipeline.pages.rows import Rows
from smoothcert.pipeline.statistics import share_interval
from smoothcert.workers.runs.environment import environment_of
from smoothcert.workers.runs.published import PublishedFile
from smoothcert.workers.runs.votes_table import ABSENT, matrix_of, numbers_of

_COLUMNS = [
    *("key", "shard", "index", "image_offset", "image_bytes", "sha256", "status", "error", "label"),
    *("clean_prediction", "prediction", "count", "runner_up_count", "votes", "margins"),
    *("max_certified_patch", "max_margin_certified_patch"),
]
_OWN_THREAT = {
    (Certificate.recovery, RuleName.exact): "recovery_certified",
    (Certificate.recovery, RuleName.published): "recovery_published",
    (Certificate.detection, RuleName.published): "detection_certified",
}
MARGINS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Limits under which votes are counted as fragile."""
MAX_REASONS, FURTHER_REASONS = 10_000, "further reasons"
"""Reasons of errors that are told apart, and the name of all others: each image may have a reason of its own."""

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Share:
    """A share of images, with its exact interval (95 %, Clopper and Pearson)."""

    count: int
    images: int

    @property
    def value(self) -> float:
        return self.count / self.images if self.images else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return share_interval(self.count, self.images)


class ClassFigures(NamedTuple):
    """One class: by label, or by prediction without labels.

    Attributes:
        number: of the class.
        images: of the class.
        clean, smoothed: how many are right; None without labels, or without clean predictions.
        certified: certified by the exact rule, and right.
        falls_to: the class that its other images are predicted as most often; None if there are none.
        fallen: how many are predicted so.
    """

    number: int
    images: int
    clean: int | None
    smoothed: int | None
    certified: int
    falls_to: int | None
    fallen: int


class Detection(NamedTuple):
    """Attacks on the whole image that would be noticed.

    Attributes:
        certified: by the exact rule, one share for each side of a square from 1 on: the class of the whole image is
            right, and cannot change without an alarm.
        silent: those that are right and raise no alarm by themselves; they are certified against every patch that the
            masks hide.
        false_alarms: those that raise an alarm though nothing attacks them, right or wrong.
    """

    certified: tuple[Share, ...]
    silent: Share
    false_alarms: Share


@dataclass(frozen=True)
class Figures:
    """The figures of a run.

    Attributes:
        images: number of rows.
        labelled: whether the job has labels; otherwise certificates count whatever the class.
        with_clean: whether the job classifies whole images.
        clean, smoothed: None without labels, or without clean predictions.
        certified: by rule, one share for each side of a square, from 1 to the largest that the votes answer for.
        own_threat: by certificate and rule, against what the masks were made for; empty for columns, rows and blocks,
            and without detection if there are no clean predictions.
        detection: by masks; None without masks, or without clean predictions.
        side: of the square patch that the headline and the table of classes are about.
        classes: in ascending order.
        status: number of images of each status.
        errors: number of images of each status and reason, the most frequent first; without "ok".
        votes: number of votes.
        fragile: number of votes whose margin is below each of MARGINS.
        files: how many were read.
        environments: number of files of each environment.
        seconds: of work on shards, all together.
    """

    images: int
    labelled: bool
    with_clean: bool
    clean: Share | None
    smoothed: Share | None
    certified: dict[str, tuple[Share, ...]]
    own_threat: dict[Certificate, dict[RuleName, Share]]
    detection: Detection | None
    side: int
    classes: tuple[ClassFigures, ...]
    status: dict[str, int]
    errors: tuple[tuple[str, str, int], ...]
    votes: int
    fragile: tuple[int, ...]
    files: int
    environments: dict[str, int]
    seconds: float


@dataclass
class Sums:
    """Counts over files; `figures` turns them into shares.

    Attributes:
        job: of the run.
        side: of the patch that the table of classes is about.
        sides: by rule, [sides + 1] images whose largest certified square has each side, those that count as right.
        noticed: the same for detection.
        own_threat: by certificate and rule, images that are certified against what the masks were made for, and right.
        silent, alarms: as in Detection.
        pairs: [classes, classes] sparse: images by label and prediction.
    """

    job: Job
    side: int
    images: int = 0
    clean: int = 0
    smoothed: int = 0
    votes: int = 0
    files: int = 0
    seconds: float = 0.0
    sides: dict[str, Ints] = field(default_factory=dict)
    noticed: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    own_threat: dict[Certificate, Counter[RuleName]] = field(default_factory=dict)
    silent: int = 0
    alarms: int = 0
    fragile: Ints = field(default_factory=lambda: np.zeros(len(MARGINS), np.int64))
    status: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    environments: Counter[str] = field(default_factory=Counter)
    by_class: dict[str, Counter[int]] = field(default_factory=dict)
    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def labelled(self) -> bool:
        return self.job.images.label is not None

    def add(self, file: PublishedFile, judged: Rows) -> None:
        """Count the rows of a file, which `judged` has, too."""
        rows = file.rows
        self.files += 1
        self.images += len(rows)
        self.seconds += file.metadata.seconds or 0.0
        self.environments[environment_of(file.metadata.environment)] += 1
        self.status.update(rows["status"].to_pylist())
        failed = rows.filter(pc.not_equal(rows["status"], "ok"))
        for status, error in zip(failed["status"].to_pylist(), failed["error"].to_pylist(), strict=True):
            known = (status, error) in self.errors or len(self.errors) < MAX_REASONS
            self.errors[status, error if known else FURTHER_REASONS] += 1
        self._add_classes(rows, judged)
        if isinstance(self.job.ablation, MaskAblation):
            self._add_masks(rows, judged)
        self._add_margins(rows)

    def _add_classes(self, rows: pa.Table, judged: Rows) -> None:
        label, clean, prediction = (numbers_of(rows[name]) for name in ("label", "clean_prediction", "prediction"))
        right = (prediction == label) & (label != ABSENT) if self.labelled else prediction != ABSENT
        clean_right = (clean == label) & (label != ABSENT)
        self.clean += int(clean_right.sum())
        self.smoothed += int((right & self.labelled).sum())
        for rule, largest in judged.largest_squares.items():
            self.sides[rule] = self.sides.get(rule, 0) + self._by_side(largest, right, judged)
        of = label if self.labelled else prediction
        certified = right & (judged.largest_squares[RuleName.exact] >= self.side)
        for name, which in (
            ("images", of != ABSENT),
            ("clean", clean_right),
            ("smoothed", right),
            ("certified", certified),
        ):
            numbers, counts = np.unique(of[which], return_counts=True)
            counter = self.by_class.setdefault(name, Counter())
            counter.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        wrong = self.labelled & (prediction != label) & (prediction != ABSENT) & (label != ABSENT)
        pairs, counts = np.unique(np.stack([label[wrong], prediction[wrong]], 1), axis=0, return_counts=True)
        self.pairs.update(dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True)))

    def _by_side(self, largest: Ints, right: Bools, judged: Rows) -> Ints:
        """[sides + 1]: images by the side of their largest certified square, 0 if they are not right."""
        return np.bincount(np.where(right, largest, 0), minlength=judged.rules.longest_square + 1)

    def _add_masks(self, rows: pa.Table, judged: Rows) -> None:
        label, clean, prediction = (numbers_of(rows[name]) for name in ("label", "clean_prediction", "prediction"))

        def right(of: Ints) -> Bools:
            there: Bools = of != ABSENT
            return there & (of == label) if self.labelled else there

        stored = {claim: _truth(rows[column]) for claim, column in _OWN_THREAT.items()}
        classes = {Certificate.recovery: prediction} | ({Certificate.detection: clean} if self.job.clean else {})
        for certificate, of in classes.items():
            counter = self.own_threat.setdefault(certificate, Counter())
            for rule in judged.rules.family.rules[certificate]:
                held = stored.get((certificate, rule))
                if held is None:  # the files have no column for it
                    held = judged.certified(None, Claim(certificate, rule))
                counter[rule] += int((right(of) & held).sum())
        if self.job.clean:
            counts = self._by_side(judged.largest_noticed, right(clean), judged)
            self.noticed = counts if not len(self.noticed) else self.noticed + counts
            no_alarm = stored[Certificate.detection, RuleName.published]
            self.silent += int((right(clean) & no_alarm).sum())
            self.alarms += int((judged.voted & ~no_alarm).sum())

    def _add_margins(self, rows: pa.Table) -> None:
        margins = matrix_of(rows["margins"].drop_null())
        self.votes += int((~np.isnan(margins)).sum())
        self.fragile += [int((margins < limit).sum()) for limit in MARGINS]

    def figures(self) -> Figures:
        """The figures of all files that were added."""
        job = self.job
        return Figures(
            images=self.images,
            labelled=self.labelled,
            with_clean=job.clean,
            clean=Share(self.clean, self.images) if self.labelled and job.clean else None,
            smoothed=Share(self.smoothed, self.images) if self.labelled else None,
            certified={rule: self._shares(counts) for rule, counts in self.sides.items()},
            own_threat={
                certificate: {rule: Share(count, self.images) for rule, count in counts.items()}
                for certificate, counts in self.own_threat.items()
            },
            detection=self._detection(),
            side=self.side,
            classes=tuple(self._classes()),
            status=dict(self.status),
            errors=tuple((status, error, count) for (status, error), count in self.errors.most_common()),
            votes=self.votes,
            fragile=tuple(self.fragile.tolist()),
            files=self.files,
            environments=dict(self.environments),
            seconds=self.seconds,
        )

    def _shares(self, counts: Ints) -> tuple[Share, ...]:
        """For each side from 1 on: the images that are certified against this square or a larger one."""
        return tuple(Share(int(count), self.images) for count in counts[::-1].cumsum()[::-1][1:])

    def _detection(self) -> Detection | None:
        if not len(self.noticed):
            return None
        silent, alarms = (Share(count, self.images) for count in (self.silent, self.alarms))
        return Detection(self._shares(self.noticed), silent, alarms)

    def _classes(self) -> Iterable[ClassFigures]:
        falls: dict[int, tuple[int, int]] = {}
        for (label, prediction), count in sorted(self.pairs.items()):
            if count > falls.get(label, (0, 0))[1]:
                falls[label] = prediction, count
        for number, images in sorted(self.by_class.get("images", {}).items()):
            falls_to, fallen = falls.get(number, (None, 0))
            yield ClassFigures(
                number,
                images,
                self.by_class["clean"][number] if self.labelled and self.job.clean else None,
                self.by_class["smoothed"][number] if self.labelled else None,
                self.by_class["certified"][number],
                falls_to,
                fallen,
            )


def columns_of(job: Job) -> list[str]:
    """The columns of the files that a report reads."""
    return [*_COLUMNS, *(_OWN_THREAT.values() if isinstance(job.ablation, MaskAblation) else [])]


def _truth(column: pa.ChunkedArray) -> Bools:
    """[rows]: a column of truth values, false where a row has none."""
    return np.asarray(pc.fill_null(column, False))
