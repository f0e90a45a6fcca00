"""Answers of `smoothcert query`: a table for people, JSON for machines, Parquet for each image."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

from smoothcert.manifests.ablation import Area, threat_in_words
from smoothcert.manifests.rules import Certificate, Claim, Subject
from smoothcert.pipeline.console.looks import DASH, fits, number_of, percent, say, show
from smoothcert.pipeline.overview.runs_list import run_in_words
from smoothcert.pipeline.pages.class_names import name_of
from smoothcert.pipeline.query.answering import Answered, Answers, Counts, Result, answer
from smoothcert.pipeline.query.questions import Question
from smoothcert.workers.ablations.unions import MAX_EXACT
from smoothcert.workers.notebook import html_table
from smoothcert.workers.runs.votes_table import ABSENT, METADATA_KEY, column, spread
from smoothcert.workers.storage.output_file import OutputFile

Row = dict[str, str]
"""Cells by the titles of their columns."""


SCHEMA = pa.schema(
    [
        column("shard", pa.string(), "Base name of the tar."),
        column("key", pa.string(), "The sample's key in the tar."),
        column("patch_height", pa.int32(), "Of the question: height of the patch in pixels.", nullable=True),
        column("patch_width", pa.int32(), "Of the question: width of the patch in pixels.", nullable=True),
        column(
            "pixels",
            pa.int32(),
            "Of the question: every rectangle of up to so many pixels; null for a patch of one height and width.",
            nullable=True,
        ),
        column("patches", pa.int32(), "Of the question: number of patches at once."),
        column(
            "stride",
            pa.int32(),
            "Of the question: distance between the ablations that vote, in pixels; null for masks.",
            nullable=True,
        ),
        column("tolerance", pa.float64(), "Of the question: votes with smaller margins count as the attacker's."),
        column("certificate", pa.string(), "Of the question: recovery or detection."),
        column("rule", pa.string(), "Of the question: exact, margin or published."),
        column(
            "alarm_below",
            pa.float64(),
            "Of the question: masks with smaller margins raise an alarm; null for recovery.",
            nullable=True,
        ),
        column("top", pa.int32(), "Of the question: the class stays among so many classes with the most votes."),
        column("of", pa.string(), "Of the question: which class, prediction or label."),
        column("label", pa.int32(), "Class of the image; null without a usable label.", nullable=True),
        column(
            "prediction",
            pa.int32(),
            "Class that the votes predict, for detection that of the whole image; null without votes.",
            nullable=True,
        ),
        column(
            "certified",
            pa.bool_(),
            "Whether the class stays among the `top` whatever such patches show, for detection unless an alarm sounds; "
            "false without votes, and without a label if the class is the label.",
        ),
        column(
            "alarm",
            pa.bool_(),
            "Whether an alarm sounds without any patch; null for recovery, and without votes.",
            nullable=True,
        ),
        column(
            "slack",
            pa.int32(),
            "Votes, or masks, by which the certificate holds, 0 or more, or fails, below 0; null without votes, and "
            "without a label if the class is the label.",
            nullable=True,
        ),
        column("is_bound", pa.bool_(), "Whether `certified` and `slack` are sound bounds, not exact."),
        column(
            "weakest",
            pa.list_(pa.list_(pa.int32(), 2)),
            "Top and left pixel of each patch where the slack is smallest; null for bounds, for patches of several "
            "sizes, for the rule `published`, and without a slack.",
            nullable=True,
        ),
    ]
)
"""The answer to a question for one image: the columns of AnswersFile."""


class AnswersFile:
    """A Parquet file with a row for each image and each question. It appears when it is complete.

    An image without votes has a row too: not certified, without prediction and slack. The file's metadata says under
    `smoothcert` which run was asked, and how much of it was published.
    """

    def __init__(self, output: OutputFile) -> None:
        self._opened = ExitStack()
        file = self._opened.enter_context(output.opened())
        self._writer = self._opened.enter_context(pq.ParquetWriter(file, SCHEMA, compression="zstd"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, traceback)

    def __call__(self, rows: pa.Table, question: Question, answered: Answered) -> None:
        """Add the images of one file."""
        self._writer.write_table(image_rows(rows, question, answered))

    def describe(self, answers: Answers) -> None:
        """Write into the file which run was asked."""
        self._writer.add_key_value_metadata({METADATA_KEY.decode(): json.dumps(describe_run(answers))})


def image_rows(rows: pa.Table, question: Question, answered: Answered) -> pa.Table:
    """The images of one file; `weakest` holds top and left pixel of each patch where the slack is smallest."""
    found, voted = answered.answer, pc.is_valid(rows["votes"]).to_numpy()
    same = describe_question(question)
    same["patch_height"], same["patch_width"] = same.pop("patch") or (None, None)
    same["is_bound"] = found.is_bound
    columns: dict[str, Any] = {name: pa.repeat(value, len(rows)) for name, value in same.items()}
    columns |= {name: rows[name] for name in ("shard", "key", "label")}
    there = answered.has_subject(question.claim)
    placed = (
        there & (found.places >= 0).all(axis=(1, 2)) & (not found.is_bound and not isinstance(question.patch, Area))
    )
    columns["prediction"] = spread(pa.array(answered.prediction, mask=answered.prediction == ABSENT), voted)
    columns["slack"] = spread(pa.array(found.slack, mask=~there), voted)
    columns["weakest"] = spread(
        pa.array([places if one else None for one, places in zip(placed, found.places.tolist(), strict=True)]), voted
    )
    alarms = [None] * len(there) if found.alarms is None else found.alarms
    columns["alarm"] = spread(pa.array(alarms, pa.bool_()), voted)
    columns["certified"] = pc.fill_null(spread(pa.array(found.certified), voted), False)
    return pa.table({field.name: columns[field.name] for field in SCHEMA}).cast(SCHEMA)


def images_of(answers: Answers) -> pa.Table:
    """The rows of AnswersFile; the run is asked again."""
    tables = [SCHEMA.empty_table()]

    def add(rows: pa.Table, question: Question, answered: Answered) -> None:
        tables.append(image_rows(rows, question, answered))

    answer(answers.run, [result.question for result in answers.results], per_image=[add])
    return pa.concat_tables(tables)


def html_of(answers: Answers) -> str:
    """All cells in one table, and the notices, as a notebook shows them."""
    rows, lines = cells_of(answers), [*answers.problems, *notices_of(answers)]
    return html_table(title_of(answers), [[*row.values()] for row in rows], [*rows[0]], lines)


def describe_run(answers: Answers) -> dict[str, Any]:
    """Which run was asked, and how much of it was there."""
    run = answers.run
    return {
        "run_id": run.run_id,
        "job": run.name,
        "checkpoint_sha256": run.checkpoint_sha256,
        "complete": answers.complete,
        "partial": run.partial,
        "shards": len(run.tasks),
        "published": answers.shards,
    }


def describe_question(question: Question) -> dict[str, Any]:
    """The question, in the keys of the JSON."""
    return {
        "patch": None if isinstance(question.patch, Area) else [*question.patch],
        "pixels": question.patch.pixels if isinstance(question.patch, Area) else None,
        "patches": question.patches,
        "stride": question.stride,
        "tolerance": question.tolerance,
        "certificate": question.claim.certificate.value,
        "rule": question.claim.rule.value,
        "alarm_below": question.claim.alarm_below if _is_detection(question) else None,
        "top": question.claim.top,
        "of": question.claim.of.value,
    }


def _is_detection(question: Question) -> bool:
    return question.claim.certificate == Certificate.detection


def question_in_words(question: Question) -> str:
    return ", ".join(f"{name} {cell}" for name, cell in _question_cells(question, [question]).items())


def show_answers(answers: Answers, console: Console) -> None:
    """Print the title and the tables."""
    say(console, title_of(answers))
    for table in tables_of(answers, console):
        show(console, table)


def title_of(answers: Answers) -> str:
    """Which run answers, and whether that is all of the data."""
    unfinished = "" if answers.complete else f", UNFINISHED: {_how_far(answers)}"
    return run_in_words(answers.run) + unfinished


def _how_far(answers: Answers) -> str:
    there = f"{answers.shards:,} of {number_of(len(answers.run.tasks), 'shard')}"
    return there if answers.finished else f"{there}, no _SUCCESS"


def tables_of(answers: Answers, console: Console) -> list[Table]:
    """The tables to print. Shares are of all images, including those without votes.

    What all rows of a table have in common is its title. If the columns do not fit the console, more of the question
    moves into the title: a table for each rule, then for each rule and tolerance, and so on.
    """
    rows, questions = cells_of(answers), _questions_of(answers)
    asked = [*_question_cells(questions[0], questions)]
    differ = [name for name in asked if len({row[name] for row in rows}) > 1]
    for kept in range(len(differ), -1, -1):
        titles = [name for name in asked if name not in differ[:kept]]
        tables = [*_divided(rows, titles)]
        if all(fits(console, table) for table in tables):
            break
    return tables


def cells_of(answers: Answers) -> list[Row]:
    """A row for each question and class, as people read it."""
    questions = _questions_of(answers)
    return [
        _question_cells(result.question, questions) | _answer_cells(name, counts, result, answers)
        for result in answers.results
        for name, counts in _in_order(result)
    ]


def _divided(rows: Sequence[Row], titles: Sequence[str]) -> Iterator[Table]:
    """A table for each combination of the titles' values, in the order of the rows; columns are equally wide in all."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(", ".join(f"{name} {row[name]}" for name in titles), []).append(row)
    names = [name for name in rows[0] if name not in titles]
    widths = {name: max(cell_len(row[name]) for row in rows) for name in names}
    for title, part in parts.items():
        columns = [Column(name, justify="right", no_wrap=True, min_width=widths[name]) for name in names]
        table = Table(*columns, title=title, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for row in part:
            table.add_row(*(row[name] for name in names))
        yield table


def _questions_of(answers: Answers) -> list[Question]:
    return [result.question for result in answers.results]


def _question_cells(question: Question, beside: Sequence[Question]) -> Row:
    """The question as people read it; what is claimed only if one of those `beside` it claims something else."""
    cells = {"patch": threat_in_words(question.patch), "patches": str(question.patches)}
    if question.stride is not None:
        cells["stride"] = str(question.stride)
    cells["tolerance"] = f"{question.tolerance:g}"
    if any(map(_is_detection, beside)):
        cells["certificate"] = question.claim.certificate.value
    cells["rule"] = question.claim.rule.value
    if any(map(_is_detection, beside)):
        cells["alarm below"] = f"{question.claim.alarm_below:g}" if _is_detection(question) else DASH
    if any(_is_about_top(one.claim) for one in beside):
        cells |= {"top": str(question.claim.top), "of": question.claim.of.value}
    return cells


def _is_about_top(claim: Claim) -> bool:
    return (claim.top, claim.of) != (1, Subject.prediction)


def _answer_cells(name: int | None, counts: Counts, result: Result, answers: Answers) -> Row:
    at_least = ">= " if result.is_bound else ""
    cells = {"class": "all" if name is None else name_of(name, answers.run.class_names)} if answers.by_class else {}
    cells["images"] = f"{counts.images:,}"
    cells["correct"] = _share(counts.correct, counts.images) if answers.labels else DASH
    cells["certified"] = at_least + _share(counts.certified, counts.images)
    cells["certified\ncorrect"] = at_least + _share(counts.certified_correct, counts.images) if answers.labels else DASH
    if any(map(_is_detection, _questions_of(answers))):
        alarms = _is_detection(result.question)
        cells["silent"] = _share(counts.silent, counts.images) if alarms else DASH
        cells["silent\ncorrect"] = _share(counts.silent_correct, counts.images) if alarms and answers.labels else DASH
        cells["false\nalarms"] = _share(counts.false_alarms, counts.images) if alarms else DASH
    if answers.brackets:
        bracket = answers.bracket_of(result.question)
        cells["under\nattack"] = DASH if name is not None or bracket is None else bracket.upper_text
    return cells


def as_json(answers: Answers) -> list[dict[str, Any]]:
    """One object per question and class; what is correct is null without usable labels, alarms are null for recovery.

    `class_name` is there if the run knows it. `accuracy_under_attack` is null for a class, and if nothing was attacked.
    """
    names = answers.run.class_names
    return [
        describe_run(answers)
        | {
            **describe_question(result.question),
            "class": name,
            "images": counts.images,
            "certified": counts.certified,
            "correct": counts.correct if answers.labels else None,
            "certified_correct": counts.certified_correct if answers.labels else None,
            "silent": counts.silent if _is_detection(result.question) else None,
            "silent_correct": counts.silent_correct if _is_detection(result.question) and answers.labels else None,
            "false_alarms": counts.false_alarms if _is_detection(result.question) else None,
            "is_bound": result.is_bound,
            "accuracy_under_attack": None if name is not None else _under_attack(answers, result.question),
        }
        | ({"class_name": names[name]} if name is not None and name < len(names) else {})
        for result in answers.results
        for name, counts in _in_order(result)
    ]


def _under_attack(answers: Answers, question: Question) -> dict[str, Any] | None:
    bracket = answers.bracket_of(question)
    if bracket is None:
        return None
    return bracket.upper._asdict() | {"attacked": bracket.attacked, "fell": bracket.fell}


_CSV_COLUMNS = [
    *("run_id", "job", "checkpoint_sha256", "complete", "partial", "shards", "published"),
    *("patch_height", "patch_width", "pixels", "patches", "stride", "tolerance", "certificate", "rule"),
    *("alarm_below", "top", "of", "class", "class_name"),
    *("images", "certified", "correct", "certified_correct", "silent", "silent_correct", "false_alarms", "is_bound"),
]
_UNDER_ATTACK = {
    "under_attack": "share",
    "under_attack_low": "low",
    "under_attack_high": "high",
    "attacked": "attacked",
    "fell": "fell",
}
"""Columns of CSV if there are attacks, and their keys in the JSON."""


def csv_columns(answers: Answers) -> list[str]:
    """The columns of CSV."""
    return [*_CSV_COLUMNS, *(_UNDER_ATTACK if answers.brackets else ())]


def as_records(answers: Answers) -> Iterator[dict[str, Any]]:
    """The objects of `as_json` as rows of `csv_columns`; a patch is two numbers, as in the file of images."""
    columns = csv_columns(answers)
    for one in as_json(answers):
        height, width = one["patch"] or (None, None)
        upper = one["accuracy_under_attack"] or {}
        values = one | {"patch_height": height, "patch_width": width}
        values |= {column: upper.get(key) for column, key in _UNDER_ATTACK.items()}
        yield {name: values.get(name) for name in columns}


def notices_of(answers: Answers) -> list[str]:
    """What else a reader of the answers must know."""
    notices = []
    if not answers.complete:
        notices.append(
            f"the run is not finished: answers are of {answers.shards} of {len(answers.run.tasks)} shards"
            + ("" if answers.finished else ", and _SUCCESS is missing; run the job's command again to finish it")
        )
    if answers.run.partial:
        notices.append(f"the run is PARTIAL: images.limit of its job is {answers.run.job.images.limit:,}")
    if any(result.is_bound for result in answers.results):
        notices.append(
            ">= is a sound bound: the patches have too many different places together to try each "
            f"(places x ablations above {MAX_EXACT:,})"
        )
    questions = _questions_of(answers)
    if any(map(_is_detection, questions)):
        notices.append(
            "detection: certified counts whole-image classes that cannot change without an alarm, silent those of them "
            "that raise no alarm as they are, false alarms the images that do"
        )
    claims = {one.claim for one in questions}
    if any(one.top > 1 and one.of == Subject.prediction for one in claims):
        notices.append(
            "top K of prediction: certified counts predictions that stay among the K classes with the most votes"
        )
    if any(one.of == Subject.label for one in claims):
        notices.append(
            "top K of label: correct counts labels that are among the K classes with the most votes, certified those "
            "that stay there"
        )
    if answers.brackets:
        what = "accuracy" if answers.run.job.images.label is not None else "share of predictions that stay"
        notices.append(
            f"under attack: {what} with the patches that attacks found; the interval (95 %) allows for the images that "
            "were not attacked"
        )
    if answers.by_class:
        everyone = answers.results[0].classes
        known = sum(counts.images for name, counts in everyone.items() if name is not None)
        if unknown := everyone[None].images - known:
            have = "has" if unknown == 1 else "have"
            notices.append(f"{number_of(unknown, 'image')} {have} no class; only the row `all` counts them")
    return notices


def _in_order(result: Result) -> list[tuple[int | None, Counts]]:
    return sorted(result.classes.items(), key=lambda entry: -1 if entry[0] is None else entry[0])


def _share(count: int, images: int) -> str:
    return percent(count / images if images else None)
