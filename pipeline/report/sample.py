"""What a sample of the votes says: rectangles, one and two patches, and where in the frame certificates are weakest.

The sample is drawn with a seed from all images that have votes, whatever the order and the number of the files.

Not covered: figures of all images (figures.py).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smoothcert.manifests.ablation import MaskAblation
from smoothcert.manifests.job import Job
from smoothcert.pipeline.report.figures import Share
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.published import PublishedFile

GRID = 8
"""Heights, and widths, of the map of rectangles."""
ATLAS_CELLS = 32
"""Places along each side of the atlas, at most."""

_IMAGES_AT_ONCE = 50  # of the atlas: bounds the memory

Floats = NDArray[np.float64]


@dataclass
class Sampler:
    """Keeps the rows with the smallest random numbers; each row's number depends on seed, shard and position alone.

    Args:
        size: how many rows to keep.
        seed: of the numbers.
        of_class: only images of this class: by label, or by prediction without labels.
    """

    size: int
    seed: int
    of_class: int | None = None
    labelled: bool = True
    _tables: list[pa.Table] = field(default_factory=list)
    _draws: Floats = field(default_factory=lambda: np.zeros(0))

    def add(self, index: int, file: PublishedFile) -> None:
        """Draw from a file; `index` is that of its shard."""
        rows = file.rows
        draws = np.random.default_rng([self.seed, index]).random(len(rows))
        there = np.asarray(pc.is_valid(rows["votes"]))
        if self.of_class is not None:
            column = rows["label" if self.labelled else "prediction"]
            there &= np.asarray(pc.fill_null(pc.equal(column, self.of_class), False))
        chosen = np.flatnonzero(there)
        chosen = chosen[np.argsort(draws[chosen], kind="stable")[: self.size]]
        columns = rows.select(["label", "prediction", "votes"])
        self._tables.append(columns.take(pa.array(chosen)))
        self._draws = np.concatenate([self._draws, draws[chosen]])
        if len(self._draws) > 4 * self.size:
            self._keep()

    def rows(self) -> pa.Table:
        """The sample, in random order."""
        self._keep()
        return self._tables[0]

    def _keep(self) -> None:
        order = np.argsort(self._draws, kind="stable")[: self.size]
        self._tables = [pa.concat_tables(self._tables).take(pa.array(order)).combine_chunks()]
        self._draws = self._draws[order]


@dataclass(frozen=True)
class SampleFigures:
    """What a sample says.

    Attributes:
        images: how many were drawn.
        seed: of the draw.
        of_class: the class that they are of; None: any.
        heights, widths: of the rectangles, in pixels.
        rectangles: [heights, widths] certified share, by the exact rule; NaN where the votes say nothing.
        sides: of the squares of the next curves; none if masks were made for one patch.
        one, two: certified shares against one patch, and against two at once.
        two_is_bound: whether the share against two patches may be larger.
        atlas_side: of the square patch of the atlas.
        tops, lefts: places of the atlas, in pixels.
        atlas: [tops, lefts], mean slack in votes, or in masks: the lower, the weaker.
    """

    images: int
    seed: int
    of_class: int | None
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    rectangles: Floats
    sides: tuple[int, ...]
    one: tuple[Share, ...]
    two: tuple[Share, ...]
    two_is_bound: bool
    atlas_side: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    atlas: Floats


def sample_figures(rows: pa.Table, job: Job, side: int, *, seed: int, of_class: int | None) -> SampleFigures:
    """Ask the votes of a sample.

    Args:
        rows: label, prediction and votes, each row with votes; at least one.
        job: of the run.
        side: of the square patch of the atlas.
        seed, of_class: how the sample was drawn; repeated in the answer.
    """
    rules = JobRules(job)
    ballots = rules.count(rows)
    right = np.ones(len(rows), bool)
    if job.images.label is not None:
        right = np.asarray(pc.fill_null(pc.equal(rows["label"], rows["prediction"]), False))

    def certified(threat: Threat) -> tuple[int, bool]:
        answer = rules.answer(ballots, threat)
        return int((answer.certified & right).sum()), answer.is_bound

    def share(height: int, width: int) -> float:
        threat = Threat(height, width)
        return certified(threat)[0] / len(rows) if rules.answers(threat) else np.nan

    heights = _lengths(rules.longest(lambda height: Threat(height, 1)), GRID)
    widths = _lengths(rules.longest(lambda width: Threat(1, width)), GRID)
    sides = _sides_of_two(rules, heights)
    two = [certified(Threat(length, length, 2)) for length in sides]
    tops, lefts, atlas = _atlas(ballots, rules, side)
    return SampleFigures(
        images=len(rows),
        seed=seed,
        of_class=of_class,
        heights=heights,
        widths=widths,
        rectangles=np.array([[share(height, width) for width in widths] for height in heights]),
        sides=sides,
        one=tuple(Share(certified(Threat(length, length))[0], len(rows)) for length in sides),
        two=tuple(Share(count, len(rows)) for count, _ in two),
        two_is_bound=any(is_bound for _, is_bound in two),
        atlas_side=side,
        tops=tops,
        lefts=lefts,
        atlas=atlas,
    )


def _lengths(most: int, count: int) -> tuple[int, ...]:
    """About `count` lengths from 1 to the longest, denser where they are short."""
    return tuple(sorted({round(length) for length in np.geomspace(1, most, count)}))


def _sides_of_two(rules: JobRules, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """The sides of squares of which one and two are compared; masks for one patch say nothing about two."""
    ablation = rules.job.ablation
    if isinstance(ablation, MaskAblation):
        if ablation.threat_patches == 1:
            return ()
        return _lengths(rules.longest(lambda side: Threat(side, side, 2)), GRID)
    return tuple(length for length in lengths if length <= rules.job.preprocess.crop // 2) or lengths[:1]


def _atlas(ballots: Any, rules: JobRules, side: int) -> tuple[tuple[int, ...], tuple[int, ...], Floats]:
    """Mean slack of the exact rule if the patch lies at each of some places."""
    places = rules.ablations.height - side + 1, rules.ablations.width - side + 1
    tops, lefts = (np.unique(np.linspace(0, number - 1, ATLAS_CELLS).round().astype(int)) for number in places)
    total = np.zeros(places)
    for start in range(0, len(ballots), _IMAGES_AT_ONCE):
        part = ballots.of_images(slice(start, start + _IMAGES_AT_ONCE))
        total += rules.slack_everywhere(part, side, side).sum(axis=0).reshape(places)
    return tuple(tops.tolist()), tuple(lefts.tolist()), total[np.ix_(tops, lefts)] / len(ballots)
