"""`smoothcert query`: which predictions no patch can change, answered from the votes of a run.

Any rectangle, several patches at once, a coarser stride, a tolerance of margins, any claim that the ablations' family
decides: all answers come from the votes in Parquet, without the model. Several values of each option make a grid of
questions. Of a run of masks, the default question is about the patches that the masks were made for.

Not covered: whether the votes are right (pipeline/verify/), how answers are shown and written (answers.py).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smoothcert.manifests.ablation import Area, MaskAblation, Size, WindowAblation, stride_of
from smoothcert.manifests.arguments import number, several, whole_number
from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import Certificate, Claim, RuleName, Subject
from smoothcert.pipeline.bracket import Bracket, brackets_of, patch_attacks_of
from smoothcert.workers.ablations.kinds import Ablations, ablations_of
from smoothcert.workers.ablations.threats import Patch, Threat, rectangles
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.certificates.rules import Answer
from smoothcert.workers.certificates.top_k import labels_on_top
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run, run_of
from smoothcert.workers.runs.votes_table import ABSENT, cast_of, matrix_of, numbers_of

_COLUMNS = ["key", "shard", "label", "votes", "margins"]
_CLEAN_COLUMNS = ["clean_prediction", "clean_margin"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Question(NamedTuple):
    """Does a claim hold against this many patches?

    Attributes:
        patch: height and width in pixels; or an area, for all rectangles that the masks of the run were made for.
        patches: how many at once.
        stride: of the ablations that vote, in pixels; None for masks.
        tolerance: votes of smaller margins count as touched.
        claim: what is claimed; by default, that the prediction cannot change.
    """

    patch: Size | Area
    patches: int
    stride: int | None
    tolerance: float
    claim: Claim = Claim()

    def attacked_size(self, job: Job) -> Size | None:
        """The size of the patch if attacks on a run ask the same, else None.

        They try one patch, against all votes, the prediction and the exact rule.
        """
        is_same = self[1:] == (1, _own_stride(job), 0.0, Claim())
        return self.patch if is_same and not isinstance(self.patch, Area) else None


@dataclass
class Counts:
    """Images of one class, or of all: how many, certified, correct, and both. An image without votes is neither.

    Correct means that the prediction is the label; for a claim of the label, that this is among the K classes with the
    most votes; for detection, that the class of the whole image is the label.

    Of detection: `false_alarms` are images that raise an alarm as they are, without any patch, `silent` those that are
    certified and raise none, and `silent_correct` those of them that are correct.
    """

    images: int = 0
    certified: int = 0
    correct: int = 0
    certified_correct: int = 0
    silent: int = 0
    silent_correct: int = 0
    false_alarms: int = 0

    def add(self, images: int, certified: Bools, correct: Bools, alarms: Bools | None) -> None:
        self.images += images
        self.certified += int(certified.sum())
        self.correct += int(correct.sum())
        self.certified_correct += int((certified & correct).sum())
        if alarms is not None:
            self.silent += int((certified & ~alarms).sum())
            self.silent_correct += int((certified & ~alarms & correct).sum())
            self.false_alarms += int(alarms.sum())


@dataclass
class Result:
    """The answer to one question.

    Attributes:
        classes: counts by class; the key None holds those of all images.
        is_bound: the true number of certified images may be larger.
    """

    question: Question
    classes: dict[int | None, Counts] = field(default_factory=lambda: {None: Counts()})
    is_bound: bool = False


def parse_patches(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Heights and widths of texts such as `32`, `16x48` and `1..64`.

    Raises:
        RequestError: a text is none of these.
    """
    return [patch for text in texts for patch in _parse_patch(text)]


def _parse_patch(text: str) -> list[tuple[int, int]]:
    if one := re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text, re.ASCII):
        return [(int(one[1]), int(one[2] or one[1]))]
    # Few digits: sides that do not fit the image are refused one by one, later.
    if several := re.fullmatch(r"(\d{1,4})\.\.(\d{1,4})(?:\.\.(\d{1,4}))?", text, re.ASCII):
        first, last, step = int(several[1]), int(several[2]), int(several[3] or 1)
        if first <= last and step:
            return [(side, side) for side in range(first, last + 1, step)]
    raise RequestError(
        f"--patch {text}: expected a side such as 32, HEIGHTxWIDTH such as 16x48, sides such as 1..64, or every third "
        "of these, 1..64..3, in pixels"
    )


def questions_of(
    job: Job,
    *,
    patches: Patch | Sequence[Patch] = (),
    counts: int | Sequence[int] = (),
    strides: int | Sequence[int] = (),
    tolerances: float | Sequence[float] = (),
    certificate: str | Sequence[str] = (),
    rules: str | Sequence[str] = (),
    alarm_below: float | Sequence[float] = (),
    top: int | Sequence[int] = (),
    of: str | Sequence[str] = (),
) -> list[Question]:
    """Every combination of the values; a single value is one.

    By default: the job's patches, one at a time, or the threat of its masks; the job's stride; no tolerance; recovery,
    by the first rule of the job's family; and the prediction against every rival.

    Raises:
        RequestError: no patch, a patch that does not fit, a stride or a claim for which the votes have no answer, or a
            value that is no number.
    """
    claims = _claims_of(
        job,
        certificates=several(certificate),
        rules=several(rules),
        thresholds=several(alarm_below),
        tops=several(top),
        subjects=several(of),
    )
    margins = [number("--tolerance", tolerance) for tolerance in several(tolerances)] or [0.0]
    if endless := [tolerance for tolerance in margins if not 0 <= tolerance < math.inf]:
        raise RequestError(f"--tolerance {endless[0]}: must be a finite number from 0 on")
    threats = [*product(_sizes(job, rectangles(patches)), _counts(job, several(counts)))]
    if isinstance(job.ablation, MaskAblation):
        masks = ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop)
        for patch, count in threats:
            if not isinstance(patch, Area):
                masks.refuse(Threat(*patch, count))
    grid = product(threats, _strides(job, several(strides)), margins, claims)
    return [Question(patch, count, stride, tolerance, claim) for (patch, count), stride, tolerance, claim in grid]


def _sizes(job: Job, patches: Sequence[Size]) -> Sequence[Size | Area]:
    crop = job.preprocess.crop
    if not patches and isinstance(job.ablation, MaskAblation):
        return [job.ablation.threat]
    sizes = patches or rectangles(job.patches)
    if not sizes:
        raise RequestError("--patch: name at least one, such as --patch 32; the job has no `patches`")
    if large := [patch for patch in sizes if not (min(patch) >= 1 and max(patch) <= crop)]:
        raise RequestError(f"--patch {large[0][0]}x{large[0][1]}: must be 1x1 to {crop}x{crop}, the image")
    return sizes


def _counts(job: Job, counts: Sequence[Any]) -> list[int]:
    crop, whole = job.preprocess.crop, [whole_number("--patches", count) for count in counts]
    if many := [count for count in whole if not 1 <= count <= crop**2]:
        raise RequestError(f"--patches {many[0]}: must be 1 to {crop**2}, the pixels of the image")
    if not isinstance(job.ablation, MaskAblation):
        return whole or [1]
    own = job.ablation.threat_patches
    if many := [count for count in whole if count > own]:
        raise RequestError(
            f"--patches {many[0]}: the masks of this run were made for {own} at once; ask for no more, or certify with "
            "a larger ablation.threat_patches, at most 2"
        )
    return whole or [own]


def _strides(job: Job, strides: Sequence[Any]) -> Sequence[int | None]:
    crop, own, whole = job.preprocess.crop, _own_stride(job), [whole_number("--stride", stride) for stride in strides]
    if own is None:
        if whole:
            raise RequestError(f"--stride {whole[0]}: masks have no stride, all of them vote; leave it out")
        return [None]
    if odd := [stride for stride in whole if not 1 <= stride <= max(crop, own) or stride % own]:
        raise RequestError(
            f"--stride {odd[0]}: the run has votes at stride {own}, so name a multiple of {own} up to {crop}, the image"
        )
    return whole or [own]


def _own_stride(job: Job) -> int | None:
    return job.ablation.stride if isinstance(job.ablation, WindowAblation) else None


def _claims_of(
    job: Job,
    *,
    certificates: Sequence[str],
    rules: Sequence[str],
    thresholds: Sequence[float],
    tops: Sequence[int],
    subjects: Sequence[str],
) -> list[Claim]:
    """Every combination, as for `questions_of`; a threshold of alarms belongs to detection only."""
    family, classes = family_of(job.ablation), job.model.classes
    chosen = _certificates(job, certificates)
    margins = [number("--alarm-below", threshold) for threshold in thresholds]
    whole_tops = [whole_number("--top", top) for top in tops] or [1]
    known = {rule: None for one in chosen for rule in family.rules[one]}
    if unknown := [rule for rule in rules if rule not in known]:
        raise RequestError(f"--rule {unknown[0]}: the run's ablations answer {' and '.join(known)} only; name one")
    if margins and Certificate.detection not in chosen:
        raise RequestError("--alarm-below: only detection raises alarms; add --certificate detection")
    if endless := [margin for margin in margins if not 0 <= margin < math.inf]:
        raise RequestError(f"--alarm-below {endless[0]}: must be a finite margin from 0 on")
    if few := [top for top in whole_tops if not 1 <= top < classes]:
        raise RequestError(
            f"--top {few[0]}: must be 1 to {classes - 1}; all {classes} classes are always among the first {classes}"
        )
    if unknown := [subject for subject in subjects if subject not in [*Subject]]:
        raise RequestError(f"--of {unknown[0]}: must be {' or '.join(Subject)}")
    if Subject.label in subjects and job.images.label is None:
        raise RequestError(
            "--of label: the images of this run have no labels; leave it out to ask about the prediction"
        )
    whose = [*map(Subject, subjects)] or [Subject.prediction]
    claims = [
        Claim(certificate, rule, top, of, margin)
        for certificate in chosen
        for rule in [*map(RuleName, rules)] or family.rules[certificate][:1]
        for top, of in product(whole_tops, whose)
        for margin in (margins if certificate == Certificate.detection and margins else [0.0])
    ]
    if wider := [one for one in claims if one.rule == RuleName.margin and one != Claim(rule=one.rule)]:
        raise RequestError(
            f"--rule margin: answers only --top 1 of the prediction, not --top {wider[0].top} --of {wider[0].of}; "
            "use --rule exact"
        )
    for claim in claims:
        family.rule(claim)  # refuses what the family does not decide
    return claims


def _certificates(job: Job, names: Sequence[str]) -> list[Certificate]:
    if unknown := [name for name in names if name not in [*Certificate]]:
        raise RequestError(f"--certificate {unknown[0]}: must be {' or '.join(Certificate)}")
    chosen = [*map(Certificate, names)] or [Certificate.recovery]
    if Certificate.detection in chosen and Certificate.detection not in family_of(job.ablation).rules:
        raise RequestError(
            f"--certificate detection: ablations of kind {job.ablation.kind} answer recovery only; ask a run of masks"
        )
    if Certificate.detection in chosen and not job.clean:
        raise RequestError(
            "--certificate detection: the run has no classes of whole images; certify again with `clean: true` in the "
            "job"
        )
    return chosen


class Answered(NamedTuple):
    """The answer to one question for the images of one file that have votes.

    Attributes:
        prediction: [images], the class of the certificate: that of the votes, or for detection that of the whole image.
        correct: [images], whether the label is this class, or among the K of a claim of the label.
    """

    answer: Answer
    prediction: NDArray[np.signedinteger[Any]]
    label: Ints | None
    correct: Bools

    def has_subject(self, claim: Claim) -> Bools:
        """[images]: whether the class of the claim is known; a label may be missing."""
        subject = self.prediction if claim.of == Subject.prediction or self.label is None else self.label
        return subject != ABSENT

    def add_to(self, result: Result, rows: pa.Table, *, by_class: bool) -> None:
        certified, correct, alarms = self.answer.certified, self.correct, self.answer.alarms
        result.is_bound |= self.answer.is_bound
        result.classes[None].add(len(rows), certified, correct, alarms)
        if by_class:
            own = self.prediction if self.label is None else self.label
            everyone = own if self.label is None else numbers_of(rows["label"])  # also images without votes
            for number in np.unique(everyone[everyone != ABSENT]).tolist():
                these = own == number
                counts = result.classes.setdefault(number, Counts())
                counts.add(
                    int((everyone == number).sum()),
                    certified[these],
                    correct[these],
                    None if alarms is None else alarms[these],
                )


PerImage = Callable[[pa.Table, Question, Answered], None]
"""Takes the rows of a file, a question, and its answer for the rows that have votes."""


class Answers(NamedTuple):
    """What a run answered.

    Attributes:
        run: the run that was asked.
        results: one for each question.
        by_class: whether classes were counted too.
        shards: how many were published when the run was read; the answers cover these.
        finished: whether _SUCCESS was there by then.
        labels: how many images of these shards have a usable label; without one, accuracies are unknown.
        brackets: of the sizes that were asked for and attacked; none while the run is not complete.
    """

    run: Run
    results: list[Result]
    by_class: bool
    shards: int
    finished: bool
    labels: int
    brackets: dict[Size, Bracket]

    @property
    def complete(self) -> bool:
        return self.finished and self.shards == len(self.run.tasks)

    def bracket_of(self, question: Question) -> Bracket | None:
        """What attacks say about a question; None if there are none."""
        size = question.attacked_size(self.run.job)
        return None if size is None else self.brackets.get(size)

    @property
    def problems(self) -> list[str]:
        """What must not be, a line each: certified images that fell."""
        return [problem for one in self.brackets.values() for problem in one.problems]

    def as_records(self) -> list[dict[str, Any]]:
        """A dictionary for each question and class: a row of a data frame."""
        from smoothcert.pipeline.query.answers import as_records  # answers.py knows this file

        return [*as_records(self)]

    def images(self) -> pa.Table:
        """A row for each image and question: certified or not, and the slack. Reads the files of the run again."""
        from smoothcert.pipeline.query.answers import images_of

        return images_of(self)

    def __repr__(self) -> str:
        from smoothcert.pipeline.query.answers import title_of

        return f"<Answers: {title_of(self)}>"

    def _repr_html_(self) -> str:
        """The table of the command, as a notebook shows it."""
        from smoothcert.pipeline.query.answers import html_of

        return html_of(self)


def query(
    run: Run | str | Path,
    *,
    patches: Patch | Sequence[Patch] = (),
    counts: int | Sequence[int] = (),
    strides: int | Sequence[int] = (),
    tolerances: float | Sequence[float] = (),
    certificate: str | Sequence[str] = (),
    rules: str | Sequence[str] = (),
    alarm_below: float | Sequence[float] = (),
    top: int | Sequence[int] = (),
    of: str | Sequence[str] = (),
    by_class: bool = False,
) -> Answers:
    """Count the predictions of a run that no patch can change, for every combination of the values.

    Args:
        run: finished or not, or its path or URL.
        patches: side of a square, or height and width, in pixels; none: those of the job, or the threat of its masks.
            Of these and of the next eight, one value needs no list, except that a height and width do.
        counts: how many patches at once; none: one, or as many as the masks were made for.
        strides: only the votes at this coarser stride; none: all.
        tolerances: votes with smaller margins count as the attacker's; none: 0.
        certificate: `recovery`: the prediction cannot change, `detection`: nor the class of the whole image without an
            alarm, by votes of masks; none: `recovery`.
        rules: `exact`, or the published one: `margin`, and `published` for masks; none: `exact`.
        alarm_below: for detection, masks with smaller margins raise an alarm; none: 0.
        top: count the classes that are certain to stay among so many with the most votes; none: 1.
        of: which class: `prediction`, `label`; none: `prediction`.
        by_class: also count by label, or by prediction where the job has no labels.
    Raises:
        RequestError: a value for which the votes have no answer.
        RunError: a published file is damaged.
    """
    run = run_of(run)
    asked = questions_of(
        run.job,
        patches=patches,
        counts=counts,
        strides=strides,
        tolerances=tolerances,
        certificate=certificate,
        rules=rules,
        alarm_below=alarm_below,
        top=top,
        of=of,
    )
    return answer(run, asked, by_class=by_class)


def answer(
    run: Run, questions: Sequence[Question], *, by_class: bool = False, per_image: Sequence[PerImage] = ()
) -> Answers:
    """Answer questions from the published files of a run.

    Args:
        run: finished or not.
        questions: from `questions_of`.
        by_class: also count by label, or by prediction where the job has no labels.
        per_image: each gets the answers for each image.
    Raises:
        RunError: a published file is damaged.
    """
    job, results, shards, labels = run.job, [Result(question) for question in questions], 0, 0
    finished = run.success() is not None  # before the files are read: it is written after them
    finest = ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop)
    strides = {
        one.stride: finest.coarser(1 if one.stride is None else one.stride // stride_of(job.ablation))
        for one in questions
    }
    needs_clean = any(one.claim.certificate == Certificate.detection for one in questions)
    for file in read_published(run, _COLUMNS + (_CLEAN_COLUMNS if needs_clean else [])):
        shards += 1
        labels += len(file.rows) - file.rows["label"].null_count
        voted = file.rows.filter(pc.is_valid(file.rows["votes"]))
        if voted["margins"].null_count or matrix_of(voted["votes"]).max(initial=0) >= job.model.classes:
            raise RunError(
                f"{run.url}/{file.name} has other votes than run.json's job gives; `smoothcert verify` the run"
            )
        for result, answered in _answer_all(job, strides, voted, results):
            answered.add_to(result, file.rows, by_class=by_class)
            for hear in per_image:
                hear(file.rows, result.question, answered)
    complete = finished and shards == len(run.tasks)
    brackets = _brackets(run, questions) if complete else {}
    return Answers(run, results, by_class, shards, finished, labels, brackets)


def _brackets(run: Run, questions: Sequence[Question]) -> dict[Size, Bracket]:
    """Those of the sizes that attacks on the run asked, too."""
    sizes = {size for one in questions if (size := one.attacked_size(run.job)) is not None}
    attacks = patch_attacks_of(run) if sizes else {}
    return brackets_of(run, {size: studies for size, studies in attacks.items() if size in sizes})


def _answer_all(
    job: Job, strides: Mapping[int | None, tuple[Ablations, Ints]], voted: pa.Table, results: Sequence[Result]
) -> Iterator[tuple[Result, Answered]]:
    family, cast = family_of(job.ablation), cast_of(voted)
    label = None if job.images.label is None else numbers_of(voted["label"])
    ballots: dict[tuple[int | None, float], Any] = {}
    for result in results:
        question = result.question
        coarse, chosen = strides[question.stride]
        kind = question.stride, question.tolerance
        if kind not in ballots:
            ballots[kind] = family.ballots(
                cast.by(chosen), coarse, classes=job.model.classes, tolerance=question.tolerance
            )
        counted = ballots[kind]
        claim = question.claim
        if isinstance(question.patch, Area):
            found = family.answer_own_threat(counted, coarse, claim)
        else:
            found = family.rule(claim)(counted, coarse, Threat(*question.patch, question.patches))
        prediction = counted.prediction if claim.certificate == Certificate.recovery else counted.clean
        if label is None:
            correct = np.zeros(len(voted), bool)
        elif claim.of == Subject.label:
            correct = labels_on_top(counted, claim.top)
        else:
            correct = prediction == label
        yield result, Answered(found, prediction, label, correct)
