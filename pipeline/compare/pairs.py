"""The same images in two runs: a row for each image that both have, and lists of the images that only one has.

Images are the same if shard, key and SHA-256 are equal.

    images                a row per pair: its classes, and by each measure whether it is right in either run
    changes               a row per pair and certificate that was lost or gained, or holds for another class
    only_base, only_new   a row per image without a partner

Not covered: figures of these tables (comparison.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.manifests.job import Job
from smoothcert.pipeline.compare.measures import Certified, certified_in, errors_in, right_in, slack_and_place
from smoothcert.pipeline.pages.rows import Bools, Ints, Rows
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import ABSENT, column, matrix_of, numbers_of

LOST, GAINED, KEPT_OTHER_CLASS = "lost", "gained", "kept_other_class"

_COLUMNS = [
    *("key", "sha256", "status", "label", "clean_prediction", "clean_margin", "prediction"),
    *("max_certified_patch", "max_margin_certified_patch", "votes", "margins"),
]
_REPEATED = pa.dictionary(pa.int8(), pa.string())
_WHICH = pa.schema([("shard", pa.string()), ("key", pa.string()), ("label", pa.int32())])
_SLACK = "Votes, or masks, by which the certificate holds (0 or more) or fails in the {}; null without votes."
_CLASS = "Class in the {}: the prediction, or for detection that of the whole image; -1: none."
_PLACE = (
    "{} pixel of the weakest place of the patch, in the run that lacks the certificate; null without votes there, by "
    "the published rule, and for several patches or an area."
)
_DIFFERENCES = pa.schema(
    [
        *(("votes_changed", pa.int32()), ("votes_within_tolerance", pa.int32()), ("margin", pa.float32())),
        *(("within_tolerance", pa.bool_()), ("clean_within_tolerance", pa.bool_())),
        ("detection_within_tolerance", pa.bool_()),
    ]
)
CHANGES = pa.schema(
    [
        column("shard", pa.string(), "Base name of the tar."),
        column("key", pa.string(), "The sample's key in the tar."),
        column("label", pa.int32(), "Class of the image in the base; -1: none."),
        column("patch_height", pa.int32(), "Height of the patch in pixels; null for an area.", nullable=True),
        column("patch_width", pa.int32(), "Width of the patch in pixels; null for an area.", nullable=True),
        column("pixels", pa.int32(), "Area of all rectangles that the masks were made for, else null.", nullable=True),
        column("patches", pa.int32(), "Number of patches at once."),
        column("certificate", _REPEATED, "recovery or detection."),
        column("rule", _REPEATED, "exact, margin or published."),
        column(
            "change", _REPEATED, "lost, gained or kept_other_class (certified in both runs, for different classes)."
        ),
        column(
            "base_prediction",
            pa.int32(),
            _CLASS.format("base"),
        ),
        column("new_prediction", pa.int32(), _CLASS.format("new run")),
        column("base_slack", pa.int32(), _SLACK.format("base"), nullable=True),
        column("new_slack", pa.int32(), _SLACK.format("new run"), nullable=True),
        column("top", pa.int32(), _PLACE.format("Top"), nullable=True),
        column("left", pa.int32(), _PLACE.format("Left"), nullable=True),
        column("votes_changed", pa.int32(), "Ablations whose vote differs; null if unknown.", nullable=True),
        column("margin", pa.float32(), "Largest margin of a changed vote; null without one.", nullable=True),
        column(
            "within_tolerance", pa.bool_(), "Whether rounding explains it: all changed votes are within the tolerance."
        ),
    ]
)
"""A certificate of an image that was lost or gained, or holds for another class."""
Columns = dict[str, Any]


@dataclass(frozen=True)
class Pairs:
    """The images of two runs, in the tables that the head of this file names.

    Columns of one run begin with `base_` or `new_`. Those of both:

    - `votes_changed`: ablations whose vote differs, of those that both runs cast; null if the runs have other
      ablations, or one has no votes;
    - `votes_within_tolerance`: those of them whose margins are below the tolerance in both runs;
    - `margin`: the largest margin of the changed votes in either run, null if there are none;
    - `within_tolerance`: votes changed, all of them within the tolerance, and the label did not, so rounding explains
      what follows;
    - `clean_within_tolerance`: the clean prediction changed, its margins are below the tolerance in both runs, and the
      label did not change;
    - `detection_within_tolerance`: votes or the clean prediction changed, all of them within the tolerance;
    - `top`, `left`: the weakest place of a certificate, in the run that lacks it.

    Attributes:
        images, changes, only_base, only_new: the tables.
        labelled: whether both runs have labels.
        same_ablations: whether votes can be compared one by one.
        other_labels: pairs whose label differs; 0 if a run has no labels.
    """

    images: pa.Table
    changes: pa.Table
    only_base: pa.Table
    only_new: pa.Table
    labelled: bool
    same_ablations: bool
    other_labels: int


class _Side(NamedTuple):
    """One run, and what is judged in it."""

    prefix: str
    run: Run
    job: Job
    measures: Sequence[Certified]
    labelled: bool

    @property
    def schema(self) -> pa.Schema:
        names = ["error", *(["clean", "smoothed"] if self.labelled else []), *(one.column for one in self.measures)]
        flags = [(self.prefix + name, pa.bool_()) for name in names]
        classes = [(self.prefix + name, pa.int32()) for name in ("prediction", "clean_prediction")]
        return pa.schema([*classes, *flags])

    def judge(self, rows: pa.Table) -> Columns:
        """The columns of the schema for rows of this run."""
        counted = Rows(rows, self.job)
        right = {"error": errors_in(rows)}
        if self.labelled:
            right |= {"clean": right_in(rows, "clean_prediction"), "smoothed": right_in(rows, "prediction")}
        for measure in self.measures:
            certified = certified_in(counted, measure)
            right_class = right["clean" if measure.is_detection else "smoothed"] if self.labelled else True
            right[measure.column] = certified & right_class
        classes = {name: numbers_of(rows[name]) for name in ("prediction", "clean_prediction")}
        columns: Columns = {**classes, **right}
        return {self.prefix + name: column for name, column in columns.items()}


class _Shard(NamedTuple):
    """The rows of one shard in both runs, those of pairs at equal positions, and the rows without a partner."""

    name: str
    base: pa.Table
    new: pa.Table
    only_base: pa.Table
    only_new: pa.Table


@dataclass
class _Tables:
    """The tables of the shards so far."""

    images: list[pa.Table] = field(default_factory=list)
    changes: list[pa.Table] = field(default_factory=list)
    only_base: list[pa.Table] = field(default_factory=list)
    only_new: list[pa.Table] = field(default_factory=list)


def pair(base: Run, new: Run, measures: Sequence[Certified], tolerance: float = 0.0) -> Pairs:
    """Pair the images of two runs, and judge both sides.

    Args:
        base, new: the runs; what they have published is read.
        measures: the certificates to judge.
        tolerance: of margins.
    Raises:
        RunError: a file is damaged.
    """
    labelled = base.job.images.label is not None and new.job.images.label is not None
    one = _Side("base_", base, base.job, measures, labelled)
    two = _Side("new_", new, new.job, measures, labelled)
    same_ablations = (one.job.ablation, one.job.preprocess.crop) == (two.job.ablation, two.job.preprocess.crop)
    tables, other_labels = _Tables(), 0
    for shard in _shards(base, new):
        judged = one.judge(shard.base) | two.judge(shard.new)
        differences = _differences(shard, tolerance, same_ablations=same_ablations)
        tables.images.append(_table(_images_schema(one, two), shard.name, shard.base, judged | differences))
        tables.only_base.append(_table(_alone_schema(one), shard.name, shard.only_base, one.judge(shard.only_base)))
        tables.only_new.append(_table(_alone_schema(two), shard.name, shard.only_new, two.judge(shard.only_new)))
        tables.changes += _changes(shard, one, two, judged, differences)
        other_labels += int((labelled & _other_label(shard)).sum())
    return Pairs(
        images=_joined(tables.images, _images_schema(one, two)),
        changes=_joined(tables.changes, CHANGES),
        only_base=_joined(tables.only_base, _alone_schema(one)),
        only_new=_joined(tables.only_new, _alone_schema(two)),
        labelled=labelled,
        same_ablations=same_ablations,
        other_labels=other_labels,
    )


def _images_schema(one: _Side, two: _Side) -> pa.Schema:
    return pa.schema([*_WHICH, *one.schema, *two.schema, *_DIFFERENCES])


def _alone_schema(side: _Side) -> pa.Schema:
    return pa.schema([*_WHICH, *side.schema])


def _joined(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *tables]).unify_dictionaries()


def _table(schema: pa.Schema, shard: str, rows: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    """A table of rows of a shard; the columns of _WHICH come from the rows."""
    which = {"shard": pa.repeat(shard, len(rows)), "key": rows["key"], "label": numbers_of(rows["label"])}
    return pa.table({**which, **columns}, schema=schema)


def names_of(images: pa.Table) -> pa.ChunkedArray:
    """[images]: shard and key in one text; a zero byte is in neither."""
    return pc.binary_join_element_wise(images["shard"], images["key"], "\0")


# Reading


def _shards(base: Run, new: Run) -> Iterator[_Shard]:
    """Every shard that either run has published, by name."""
    base_files, new_files = _published(base), _published(new)
    if base.url == new.url:
        for name, rows in zip(base_files, _rows(base, base_files), strict=True):
            yield _match(name, rows, rows)
        return
    base_rows, new_rows = _rows(base, base_files), _rows(new, new_files)
    for name in sorted(base_files.keys() | new_files.keys()):
        if name not in new_files:
            one = next(base_rows)
            yield _match(name, one, one.slice(0, 0))
        elif name not in base_files:
            two = next(new_rows)
            yield _match(name, two.slice(0, 0), two)
        else:
            yield _match(name, next(base_rows), next(new_rows))


def _published(run: Run) -> dict[str, str]:
    """The published files by the names of their shards, in the order of these names."""
    return {task.shard.name: task.file_name for task in sorted(run.published_tasks(), key=lambda task: task.shard.name)}


def _rows(run: Run, files: Mapping[str, str]) -> Iterator[pa.Table]:
    for file in read_published(run, _COLUMNS, [*files.values()]):
        yield file.rows.combine_chunks()


def _match(shard: str, base: pa.Table, new: pa.Table) -> _Shard:
    """Put the rows of equal key and hash side by side, in the order of the base."""
    partner = pc.index_in(base["key"], value_set=new["key"].combine_chunks())
    same = pc.fill_null(pc.equal(base["sha256"], new["sha256"].take(partner)), False)
    in_new = partner.filter(same)
    alone = np.ones(len(new), bool)
    alone[in_new.to_numpy()] = False
    return _Shard(shard, base.filter(same), new.take(in_new), base.filter(pc.invert(same)), new.filter(pa.array(alone)))


# Comparing


def within_column(measure: str) -> str:
    """The column that says whether rounding explains a change by a measure."""
    if measure.startswith("detection_"):
        return "detection_within_tolerance"
    return "clean_within_tolerance" if measure == "clean" else "within_tolerance"


def _differences(shard: _Shard, tolerance: float, *, same_ablations: bool) -> Columns:
    """The columns of _DIFFERENCES."""
    voted = np.zeros(len(shard.base), bool)
    changed, within, largest = np.zeros((3, len(voted)))
    if same_ablations:
        voted = np.asarray(pc.and_(pc.is_valid(shard.base["votes"]), pc.is_valid(shard.new["votes"])))
        counts = _changed_votes(shard.base.filter(voted), shard.new.filter(voted), tolerance)
        changed[voted], within[voted], largest[voted] = counts
    rounded = (changed > 0) & (changed == within) & ~_other_label(shard)
    clean_rounded = _clean_within(shard, tolerance)
    same_clean = numbers_of(shard.base["clean_prediction"]) == numbers_of(shard.new["clean_prediction"])
    return {
        "votes_changed": pa.array(changed.astype(np.int32), mask=~voted),
        "votes_within_tolerance": pa.array(within.astype(np.int32), mask=~voted),
        "margin": pa.array(largest.astype(np.float32), mask=changed == 0),
        "within_tolerance": rounded,
        "clean_within_tolerance": clean_rounded,
        "detection_within_tolerance": (rounded & same_clean) | (clean_rounded & voted & (changed == within)),
    }


def _clean_within(shard: _Shard, tolerance: float) -> Bools:
    base, new = (numbers_of(rows["clean_prediction"]) for rows in (shard.base, shard.new))
    margins = [rows["clean_margin"].fill_null(np.inf).to_numpy() for rows in (shard.base, shard.new)]
    within: Bools = (base != new) & (np.maximum(*margins) < tolerance) & ~_other_label(shard)
    return within


def _other_label(shard: _Shard) -> Bools:
    """[pairs]: whether the label differs, which no rounding explains."""
    other: Bools = numbers_of(shard.base["label"]) != numbers_of(shard.new["label"])
    return other


def _changed_votes(base: pa.Table, new: pa.Table, tolerance: float) -> tuple[Ints, Ints, Any]:
    """[rows] each: changed votes, those of them within the tolerance, and the largest margin of a changed vote.

    What only one run has left out (`early_exit` of masks) follows from votes that both cast.
    """
    one, other = matrix_of(base["votes"]), matrix_of(new["votes"])
    differ = (one != other) & (one != ABSENT) & (other != ABSENT)
    changed = differ.sum(axis=1)
    within, largest = np.zeros(len(base), int), np.zeros(len(base), np.float32)
    rows = np.flatnonzero(changed)  # few, as a rule
    either = np.maximum(matrix_of(base["margins"])[rows], matrix_of(new["margins"])[rows])
    within[rows] = (differ[rows] & (either < tolerance)).sum(axis=1)
    largest[rows] = np.where(differ[rows], either, 0).max(axis=1, initial=0)
    return changed, within, largest


def _changes(shard: _Shard, one: _Side, two: _Side, judged: Columns, differences: Columns) -> Iterator[pa.Table]:
    """The rows of `changes` for each measure."""
    kept = _kept(shard, one, two, judged)
    kinds = {}
    for measure in one.measures:
        base_right, new_right = judged["base_" + measure.column], judged["new_" + measure.column]
        kinds[measure, LOST] = base_right & ~new_right
        kinds[measure, GAINED] = new_right & ~base_right
        kinds[measure, KEPT_OTHER_CLASS] = kept[measure] & (base_right == new_right)
    any_change = np.logical_or.reduce([*kinds.values(), np.zeros(len(shard.base), bool)])
    base, new = Rows(shard.base.filter(any_change), one.job), Rows(shard.new.filter(any_change), two.job)
    for (measure, change), there in kinds.items():
        if there.any():
            own = {f"{run}_prediction": judged[f"{run}_{measure.of}"] for run in ("base", "new")}
            own |= {name: differences[name] for name in ("votes_changed", "margin")}
            own["within_tolerance"] = differences[within_column(measure.column)]
            columns = {name: pa.array(column).filter(pa.array(there)) for name, column in own.items()}
            columns |= _described(measure, change, base, new, there[any_change])
            yield _table(CHANGES, shard.name, shard.base.filter(there), columns)


def _kept(shard: _Shard, one: _Side, two: _Side, judged: Columns) -> dict[Certified, Bools]:
    """By measure, [pairs]: whether both runs certify a class, but not the same."""
    kept: dict[Certified, Bools] = {}
    for of in {measure.of for measure in one.measures}:
        other_class = judged[f"base_{of}"] != judged[f"new_{of}"]
        base, new = Rows(shard.base.filter(other_class), one.job), Rows(shard.new.filter(other_class), two.job)
        for measure in one.measures:
            if measure.of == of:
                kept[measure] = np.zeros(len(other_class), bool)
                kept[measure][other_class] = certified_in(base, measure) & certified_in(new, measure)
    return kept


def _described(measure: Certified, change: str, base: Rows, new: Rows, which: Bools) -> Columns:
    """Which certificate changed and how, and by how many votes it holds or fails in each run, for some of the rows."""
    base_answer, new_answer = (slack_and_place(rows, which, measure) for rows in (base, new))
    lacking = base_answer if change == GAINED else new_answer
    numbers = ("patch_height", "patch_width", "pixels", "patches")
    same = measure.described | {"change": change}
    same |= {name: pa.scalar(same[name], pa.int32()) for name in numbers}
    return {
        **{name: pa.repeat(value, int(which.sum())) for name, value in same.items()},
        "base_slack": base_answer["slack"],
        "new_slack": new_answer["slack"],
        "top": lacking["top"],
        "left": lacking["left"],
    }
