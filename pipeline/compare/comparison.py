"""The comparison of two runs as data: how many images each has right, what was lost and gained, and how sure that is.

    comparison = compare(base, new, patches=[32])
    comparison.certified[0].lost                   # a number
    comparison.pairs.changes.to_pandas()           # the images behind it

A loss within the tolerance is no regression: votes of another device may differ where margins are tiny. Such losses and
gains are counted apart (`within_tolerance`).

Not covered: gates (gates.py), how a comparison is printed (verdict.py).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.manifests.ablation import Area, MaskAblation, Size
from smoothcert.manifests.arguments import number
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import Certificate
from smoothcert.pipeline.compare.attacks import AttackedChange, attacked_in_both
from smoothcert.pipeline.compare.comparable import IncomparableError, differing_keys, reasons_against
from smoothcert.pipeline.compare.measures import Certified
from smoothcert.pipeline.compare.pairs import KEPT_OTHER_CLASS, Pairs, names_of, pair, within_column
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.pipeline.console.looks import number_of
from smoothcert.pipeline.pages.rows import Bools, Ints
from smoothcert.pipeline.statistics import difference_interval, holm, mcnemar
from smoothcert.workers.ablations.threats import Patch, Threat, rectangles
from smoothcert.workers.runs.job_rules import JobRules, answered_by_all, own_patches
from smoothcert.workers.runs.run import Run, run_of
from smoothcert.workers.runs.votes_table import ABSENT


@dataclass(frozen=True)
class Change:
    """One measure over the paired images.

    Attributes:
        base, new: images that have it in either run.
        lost, gained: images that have it in one run alone, beyond the tolerance.
        lost_within_tolerance, gained_within_tolerance: the others; rounding can explain them.
        p_value: of McNemar's exact test on `lost` and `gained`.
        difference: of the shares of the paired images, new minus base, within the tolerance or not.
        interval: of the difference, 95 % (Tango's score interval).
    """

    base: int
    new: int
    lost: int
    gained: int
    lost_within_tolerance: int
    gained_within_tolerance: int
    p_value: float
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class CertifiedChange(Change):
    """The certificates against one patch by one rule.

    Attributes:
        measure: patch and rule.
        kept_other_class: certified in both runs for different classes; neither lost nor gained.
    """

    measure: Certified
    kept_other_class: int


class ClassChange(NamedTuple):
    """The certificates of one class: by label, or by prediction of the base if there are no labels.

    Attributes:
        number: of the class.
        images: pairs of the class.
        lost, gained: as in Change.
        p_adjusted: McNemar's p-value, corrected by Holm for the number of classes.
    """

    number: int
    images: int
    lost: int
    gained: int
    p_adjusted: float


class Changed(NamedTuple):
    """How many predictions or votes differ, beyond the tolerance and within it."""

    beyond: int
    within: int


@dataclass(frozen=True)
class Comparison:
    """Two runs over the same images.

    Attributes:
        base, new: the runs.
        itself: whether both are one folder.
        complete: whether either run is complete.
        tolerance: of margins.
        allowed: what would have refused the comparison had it not been allowed; why, by reason.
        differences: key paths at which the identities differ.
        pairs: the images.
        predictions, clean_predictions, votes: what changed where both runs have one; None if nothing can be compared.
        clean, smoothed: None without labels; `clean` also if a run has no clean predictions.
        certified: one for each patch and rule; last those against several patches or an area, if the masks of both
            runs were made for the same and no patch was asked for.
        classes: the certificates of the first patch, by class.
        attacked: one for each size of patch that attacks tried in both runs; none if a run is not complete.
    """

    base: Run
    new: Run
    itself: bool
    complete: tuple[bool, bool]
    tolerance: float
    allowed: dict[Reason, str]
    differences: tuple[str, ...]
    pairs: Pairs
    predictions: Changed
    clean_predictions: Changed | None
    votes: Changed | None
    clean: Change | None
    smoothed: Change | None
    certified: tuple[CertifiedChange, ...]
    classes: tuple[ClassChange, ...]
    attacked: tuple[AttackedChange, ...]

    @property
    def paired(self) -> int:
        return len(self.pairs.images)

    @property
    def problems(self) -> list[str]:
        """What must not be, a line each: certified images that fell."""
        brackets = [side for one in self.attacked for side in (("base", one.base), ("new", one.new))]
        return [f"{role}: {problem}" for role, bracket in brackets for problem in bracket.problems]


def compare(
    base: Run | str | Path,
    new: Run | str | Path,
    *,
    patches: Patch | Sequence[Patch] = (),
    tolerance: float = 0.0,
    allow: Collection[Reason] = (),
) -> Comparison:
    """Compare two runs image by image.

    Args:
        base, new: the runs, or their paths or URLs.
        patches: as for `query`; none: those of both jobs' squares and masks that both runs answer for.
        tolerance: of margins. Logits that differ by less than half of it explain a change within the tolerance.
        allow: reasons that do not refuse the comparison.
    Raises:
        RequestError: the runs cannot be compared, a patch does not fit the image, or the tolerance is no number.
        RunError: a file is damaged.
    """
    base, new, tolerance = run_of(base), run_of(new), number("--tolerance", tolerance)
    if not 0 <= tolerance < math.inf:
        raise RequestError(f"--tolerance {tolerance}: must be a finite number from 0 on")
    complete = base.complete(), new.complete()  # before the files are read: _SUCCESS is written after them
    reasons = reasons_against(base, new, complete)
    _refuse(reasons, allow)
    measures = _measures(base, new, patches)
    pairs = pair(base, new, measures, tolerance)
    if not len(pairs.images):
        raise RequestError(
            f"{base.url} and {new.url} have no image in common (shard, key and SHA-256); "
            "name two runs over the same tars"
        )
    if alone := _alone_in_common_shards(pairs):
        why = f"both runs have the shards of {number_of(alone, 'image')} that only one has (by key and SHA-256)"
        reasons.setdefault(Reason.images, why)
    if pairs.other_labels:
        reasons.setdefault(Reason.labels, f"the labels of {number_of(pairs.other_labels, 'image')} differ")
    _refuse(reasons, allow)
    images, with_clean = pairs.images, base.job.clean and new.job.clean
    return Comparison(
        base=base,
        new=new,
        itself=base.url == new.url,
        complete=complete,
        tolerance=tolerance,
        allowed=reasons,
        differences=tuple(differing_keys(base, new)),
        pairs=pairs,
        predictions=_changed_predictions(images, ""),
        clean_predictions=_changed_predictions(images, "clean_") if with_clean else None,
        votes=_votes(images) if pairs.same_ablations else None,
        clean=_change(images, "clean") if pairs.labelled and with_clean else None,
        smoothed=_change(images, "smoothed") if pairs.labelled else None,
        certified=tuple(_certified_change(pairs, measure) for measure in measures),
        classes=classes_of(pairs, measures[0]) if measures else (),
        attacked=attacked_in_both(base, new) if all(complete) else (),
    )


def _measures(base: Run, new: Run, patches: Patch | Sequence[Patch]) -> list[Certified]:
    """Every patch with every rule that both runs answer."""
    rules = JobRules(base.job), JobRules(new.job)
    asked = rectangles(patches)
    largest = min(base.job.preprocess.crop, new.job.preprocess.crop)
    for height, width in asked:
        if not (min(height, width) >= 1 and max(height, width) <= largest):
            raise RequestError(f"--patch {height}x{width}: must be 1x1 to {largest}x{largest}, the image")
        for side in rules:
            side.refuse(Threat(height, width))
    own = (*own_patches(base.job), *own_patches(new.job))
    sizes = asked or answered_by_all(own, base.job, new.job)
    claims = [
        (rule, certificate)
        for certificate, of_base in rules[0].family.rules.items()
        for rule in of_base
        if rule in rules[1].family.rules.get(certificate, ())
        if certificate != Certificate.detection or (base.job.clean and new.job.clean)
    ]
    about: list[tuple[Size | Area, int]] = [(size, 1) for size in dict.fromkeys(sizes)]
    threat, same_frame = several_or_area(base.job), base.job.preprocess.crop == new.job.preprocess.crop
    if not asked and threat is not None and threat == several_or_area(new.job) and same_frame:
        about.append(threat)
    return [Certified(patch, *claim, count) for patch, count in about for claim in claims]


def several_or_area(job: Job) -> tuple[Size | Area, int] | None:
    """What masks were made for, and how many at once, if this is not one patch of one size."""
    ablation = job.ablation
    if isinstance(ablation, MaskAblation) and (isinstance(ablation.threat, Area) or ablation.threat_patches > 1):
        return ablation.threat, ablation.threat_patches
    return None


def _refuse(reasons: Mapping[Reason, str], allow: Collection[Reason]) -> None:
    if refused := {reason: why for reason, why in reasons.items() if reason not in allow}:
        raise IncomparableError(refused)


def _alone_in_common_shards(pairs: Pairs) -> int:
    """How many images are in one run alone although both have read their shard, so the tar has changed."""
    paired, base, new = (
        set(table["shard"].unique().to_pylist()) for table in (pairs.images, pairs.only_base, pairs.only_new)
    )
    common = pa.array((paired | base) & (paired | new), pa.string())
    alone = pa.concat_tables([table.select(["shard"]) for table in (pairs.only_base, pairs.only_new)])
    return int(pc.is_in(alone["shard"], value_set=common).to_numpy().sum())


# Columns of the images, [images] each


def flags(images: pa.Table, column: str) -> Bools:
    """A column of truth values."""
    return np.asarray(images[column])


# Figures


def _counted(changed: Bools, within: Bools) -> Changed:
    return Changed(int((changed & ~within).sum()), int((changed & within).sum()))


def _changed_predictions(images: pa.Table, kind: str) -> Changed:
    """Both runs have a prediction, and they differ; `kind` is empty or `clean_`."""
    base, new = (images[f"{run}_{kind}prediction"].to_numpy() for run in ("base", "new"))
    changed = (base != new) & (base != ABSENT) & (new != ABSENT)
    return _counted(changed, flags(images, f"{kind}within_tolerance"))


def _votes(images: pa.Table) -> Changed:
    changed, within = (pc.sum(images[name]).as_py() or 0 for name in ("votes_changed", "votes_within_tolerance"))
    return Changed(changed - within, within)


def lost_and_gained(images: pa.Table, name: str) -> tuple[Bools, Bools]:
    """The images that have a measure in the base alone, and in the new run alone."""
    base, new = flags(images, f"base_{name}"), flags(images, f"new_{name}")
    return base & ~new, new & ~base


def within_tolerance(images: pa.Table, name: str) -> Bools:
    """The images whose changes by a measure rounding can explain."""
    return flags(images, within_column(name))


def _change(images: pa.Table, name: str) -> Change:
    within = within_tolerance(images, name)
    lost, gained = (_counted(changed, within) for changed in lost_and_gained(images, name))
    return Change(
        base=int(flags(images, f"base_{name}").sum()),
        new=int(flags(images, f"new_{name}").sum()),
        lost=lost.beyond,
        gained=gained.beyond,
        lost_within_tolerance=lost.within,
        gained_within_tolerance=gained.within,
        p_value=mcnemar(lost.beyond, gained.beyond),
        difference=(sum(gained) - sum(lost)) / len(images),
        interval=difference_interval(sum(lost), sum(gained), len(images)),
    )


def _certified_change(pairs: Pairs, measure: Certified) -> CertifiedChange:
    kept = changes_of(pairs, measure, KEPT_OTHER_CLASS)
    change = _change(pairs.images, measure.column)
    return CertifiedChange(**vars(change), measure=measure, kept_other_class=len(kept))


def changes_of(pairs: Pairs, measure: Certified, change: str) -> pa.Table:
    """The rows of `changes` that say what was lost, gained or kept of one measure."""
    there = pc.field("change") == change
    for name, value in measure.described.items():
        there &= pc.field(name).is_null() if value is None else pc.field(name) == value
    return pairs.changes.filter(there)


def clearest_changes(comparison: Comparison, change: str, *, of_one_patch: bool = False) -> pa.Table:
    """The images that lost, or gained, a certificate of the first rule beyond the tolerance, the clearest first.

    Each has one row of `changes`: that of the patch for which the slack changed most.

    Args:
        comparison: of two runs.
        change: LOST or GAINED.
        of_one_patch: leave out certificates against several patches or an area.
    """
    first = comparison.certified[0].measure
    wanted = (
        (pc.field("rule") == first.rule)
        & (pc.field("certificate") == first.certificate)
        & (pc.field("change") == change)
        & ~pc.field("within_tolerance")
    )
    if of_one_patch:
        wanted &= (pc.field("patches") == 1) & pc.field("pixels").is_null()
    chosen = comparison.pairs.changes.filter(wanted)
    votes = pc.abs(pc.subtract(pc.fill_null(chosen["base_slack"], 0), pc.fill_null(chosen["new_slack"], 0)))
    order = [("votes", "descending"), ("shard", "ascending"), ("key", "ascending")]
    chosen = chosen.append_column("votes", votes).sort_by(order)
    images = names_of(chosen).combine_chunks().dictionary_encode()
    _, firsts = np.unique(images.indices.to_numpy(), return_index=True)
    return chosen.take(np.sort(firsts))


def classes_of(pairs: Pairs, measure: Certified) -> tuple[ClassChange, ...]:
    """What was lost and gained in each class that has images, in ascending order."""
    images = pairs.images
    number: Ints = images["label" if pairs.labelled else "base_prediction"].to_numpy()
    lost, gained = lost_and_gained(images, measure.column)
    beyond = ~within_tolerance(images, measure.column)
    known = number != ABSENT
    images_of, lost_of, gained_of = (
        np.bincount(number[known & which], minlength=int(number.max(initial=0)) + 1).tolist()
        for which in (known, lost & beyond, gained & beyond)
    )
    there = [name for name, count in enumerate(images_of) if count]
    p_values = holm([mcnemar(lost_of[name], gained_of[name]) for name in there])
    return tuple(
        ClassChange(name, images_of[name], lost_of[name], gained_of[name], p_value)
        for name, p_value in zip(there, p_values, strict=True)
    )
