"""`smoothcert query`: which predictions no patch can change, answered from the votes of a run.

All answers come from the votes in Parquet, without the model.

Not covered: what can be asked (questions.py); whether the votes are right (pipeline/verify/); how answers are shown and
written (answers.py).
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smoothcert.manifests.ablation import Size
from smoothcert.manifests.errors import RunError
from smoothcert.manifests.rules import Certificate, Claim, Subject
from smoothcert.pipeline.bracket import Bracket, brackets_of, patch_attacks_of
from smoothcert.pipeline.processes import map_in_processes
from smoothcert.pipeline.query.grid import Grid
from smoothcert.pipeline.query.questions import Question, questions_of
from smoothcert.workers.ablations.threats import Patch
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.rules import Answer
from smoothcert.workers.certificates.top_k import labels_on_top
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run, run_of
from smoothcert.workers.runs.votes_table import ABSENT, cast_of, matrix_of, numbers_of

_COLUMNS = ["key", "shard", "label", "votes", "margins"]
_CLEAN_COLUMNS = ["clean_prediction", "clean_margin"]
_VOTES_AT_ONCE = 1 << 20  # unless a file has more; with their margins, 6 MB
_VOTES_OF_ALL_PROCESSES = 1 << 27  # at most twice as many are held for them
_SECONDS_WORTH_A_PROCESS = 4  # of work: each takes a CPU second to start, and this process must read all files

Bools = NDArray[np.bool_]


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

    def merge(self, others: "Counts") -> None:
        """Count other images, too."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(others, one.name))


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

    def merge(self, others: "Result") -> None:
        """Count other images, too."""
        self.is_bound |= others.is_bound
        for name, counts in others.classes.items():
            self.classes.setdefault(name, Counts()).merge(counts)


class Answered(NamedTuple):
    """The answer to one question for the images of a few files that have votes.

    Attributes:
        prediction: [images], the class of the certificate: that of the votes, or for detection that of the whole image.
        correct: [images], whether the label is this class, or among the K of a claim of the label.
    """

    answer: Answer
    prediction: NDArray[np.signedinteger[Any]]
    label: NDArray[np.integer[Any]] | None
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


class _Batch(NamedTuple):
    """The rows of a few neighbouring files."""

    files: int
    rows: pa.Table


class _Part(NamedTuple):
    """What is known of the images of a few files.

    Attributes:
        results: one for each question.
        answers: by the position of the question; none if nobody hears them.
    """

    results: list[Result]
    answers: list[tuple[int, Answered]]


PerImage = Callable[[pa.Table, Question, Answered], None]
"""Takes the rows of a few files, a question, and its answer for the rows that have votes."""


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
    processes: int = 1,
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
        processes: how many answer a large run. Several import the calling script again, so a script must start its
            work under `if __name__ == "__main__":`.
    Raises:
        RequestError: a value for which the votes have no answer.
        RunError: a published file is damaged, or a process ended early.
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
    return answer(run, asked, by_class=by_class, processes=processes)


def answer(
    run: Run,
    questions: Sequence[Question],
    *,
    by_class: bool = False,
    per_image: Sequence[PerImage] = (),
    processes: int = 1,
) -> Answers:
    """Answer questions from the published files of a run.

    Args:
        run: finished or not.
        questions: from `questions_of`.
        by_class: also count by label, or by prediction where the job has no labels.
        per_image: each gets the answers for each image.
        processes: how many answer a large run, as for `query`; this one reads the files, whatever their number.
    Raises:
        RunError: a published file is damaged, or a process ended early.
    """
    job, results, shards, labels = run.job, [Result(question) for question in questions], 0, 0
    finished = run.success() is not None  # before the files are read: it is written after them
    needs_clean = any(one.claim.certificate == Certificate.detection for one in questions)
    names = [task.file_name for task in run.published_tasks()]
    batches = _batches(run, _COLUMNS + (_CLEAN_COLUMNS if needs_clean else []), names)
    work = partial(_answer_batch, Grid(job, questions), by_class=by_class, per_image=bool(per_image))
    with closing(_side_by_side(work, batches, len(names), processes)) as parts:
        for batch, part in parts:
            shards += batch.files
            labels += len(batch.rows) - batch.rows["label"].null_count
            for result, counted in zip(results, part.results, strict=True):
                result.merge(counted)
            for number, answered in part.answers:
                for hear in per_image:
                    hear(batch.rows, questions[number], answered)
    complete = finished and shards == len(run.tasks)
    brackets = _brackets(run, questions) if complete else {}
    return Answers(run, results, by_class, shards, finished, labels, brackets)


def _side_by_side(
    work: Callable[[_Batch], _Part], batches: Iterator[_Batch], files: int, processes: int
) -> Generator[tuple[_Batch, _Part]]:
    """Each batch and what is known of its images, in order.

    This process begins. It leaves the rest to others if that is much work, as the last batch tells; in the first one,
    some things are computed once and for all.
    """
    left = files
    for place, batch in enumerate(batches):
        start = perf_counter()
        part = work(batch)
        seconds, left = perf_counter() - start, left - batch.files
        yield batch, part
        votes_per_batch = max(1, len(batch.rows) * batch.rows.schema.field("votes").type.list_size)
        batches_left = math.ceil(left / batch.files)
        worth_it = int(seconds * batches_left / _SECONDS_WORTH_A_PROCESS)
        useful = min(processes, batches_left, worth_it, _VOTES_OF_ALL_PROCESSES // votes_per_batch)
        if place > 0 and useful > 1:
            yield from map_in_processes(work, batches, useful)


def _batches(run: Run, columns: Sequence[str], names: Sequence[str]) -> Iterator[_Batch]:
    """The rows of published files, a few files at once: with few rows, each question costs more."""
    tables: list[pa.Table] = []
    votes = 0
    for file in read_published(run, columns, names):
        cast = file.rows.filter(pc.is_valid(file.rows["votes"]))
        matrix = matrix_of(cast["votes"])
        if cast["margins"].null_count or matrix.max(initial=0) >= run.job.model.classes:
            raise RunError(
                f"{run.url}/{file.name} has other votes than run.json's job gives; `smoothcert verify` the run"
            )
        if tables and votes + matrix.size > _VOTES_AT_ONCE:
            yield _Batch(len(tables), pa.concat_tables(tables))
            tables, votes = [], 0
        tables.append(file.rows)
        votes += matrix.size
    if tables:
        yield _Batch(len(tables), pa.concat_tables(tables))


def _brackets(run: Run, questions: Sequence[Question]) -> dict[Size, Bracket]:
    """Those of the sizes that attacks on the run asked, too."""
    sizes = {size for one in questions if (size := one.attacked_size(run.job)) is not None}
    attacks = patch_attacks_of(run) if sizes else {}
    return brackets_of(run, {size: studies for size, studies in attacks.items() if size in sizes})


def _answer_batch(grid: Grid, batch: _Batch, *, by_class: bool, per_image: bool) -> _Part:
    """Answer every question; any process can do it."""
    part, rows = _Part([Result(question) for question in grid.questions], []), batch.rows
    cast = cast_of(rows.filter(pc.is_valid(rows["votes"])))
    for number, answered in _answer_all(grid, cast, with_slack=per_image):
        answered.add_to(part.results[number], rows, by_class=by_class)
        if per_image:
            part.answers.append((number, answered))
    return part


def _answer_all(grid: Grid, cast: Cast, *, with_slack: bool) -> Iterator[tuple[int, Answered]]:
    """The answer to each question, by its position; without slack, only its sign is right, and places are none."""
    for number, counted, found in grid.answers(cast, with_slack=with_slack):
        claim = grid.questions[number].claim
        label = None if grid.job.images.label is None else cast.labels
        prediction = counted.prediction if claim.certificate == Certificate.recovery else counted.clean
        if label is None:
            correct = np.zeros(len(prediction), bool)
        elif claim.of == Subject.label:
            correct = labels_on_top(counted, claim.top)
        else:
            correct = prediction == label
        yield number, Answered(found, prediction, label, correct)
