"""`smoothcert query --failing`: the images whose certificate fails, one by one.

Not covered: a file of all images (AnswersFile in answers.py).
"""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.table import Column, Table

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Subject
from smoothcert.pipeline.console.looks import DASH, cell_text, number_of, say, show
from smoothcert.pipeline.pages.class_names import name_of
from smoothcert.pipeline.query.answering import Answered, Answers
from smoothcert.pipeline.query.answers import (
    SCHEMA,
    Row,
    describe_question,
    describe_run,
    image_rows,
    question_in_words,
    title_of,
)
from smoothcert.pipeline.query.questions import Question

CSV_COLUMNS = ["shard", "key", "label", "prediction", "slack", "weakest"]
_ORDERS = {
    "slack": [("slack", "ascending"), ("shard", "ascending"), ("key", "ascending")],
    "-slack": [("slack", "descending"), ("shard", "ascending"), ("key", "ascending")],
    "key": [("key", "ascending"), ("shard", "ascending")],
}


class Failing:
    """Collects the images that have votes and no certificate; hand it to `query` as `per_image`.

    For a claim of the label, an image without one is counted and not listed, too.

    Args:
        sort: `slack`: smallest first, `-slack`: largest first, or `key`; None: in the order of the run.
        limit: keep only the first so many; None: all.
    """

    def __init__(self, sort: str | None = None, limit: int | None = None) -> None:
        self._sort, self._limit = sort, limit
        self._kept = pa.schema([SCHEMA.field(name) for name in CSV_COLUMNS]).empty_table()
        self._new: list[pa.Table] = []
        self.count = 0
        self.without_votes = 0
        self.without_label = 0

    def __call__(self, rows: pa.Table, question: Question, answered: Answered) -> None:
        table = image_rows(rows, question, answered)
        failing = table.filter(pc.less(table["slack"], 0)).select(CSV_COLUMNS)
        self.count += len(failing)
        self.without_votes += table["prediction"].null_count
        self.without_label += table["slack"].null_count - table["prediction"].null_count
        self._new.append(failing)
        if self._limit is not None:  # so that no more than a file's images are held besides
            self._kept, self._new = self.table, []

    @property
    def table(self) -> pa.Table:
        """The images, sorted and cut."""
        table = pa.concat_tables([self._kept, *self._new])
        if self._sort is not None:
            table = table.sort_by(_ORDERS[self._sort])
        return table[: self._limit]


def refuse_several(questions: list[Question]) -> None:
    """Images are listed for one question.

    Raises:
        RequestError: there are several.
    """
    if len(questions) > 1:
        raise RequestError(
            f"--failing: answers one question, and these options make {len(questions)}; name one --patch, and one "
            "value of each other option"
        )


def show_failing(failing: Failing, answers: Answers, console: Console) -> None:
    """Print which question it is, a table, and how many more images there are."""
    cells = cells_of(failing, answers)
    say(console, title_of(answers))
    say(console, headline_of(failing, answers))
    if not cells:
        return
    columns = [Column(name, justify="right" if name == "slack" else "left", overflow="fold") for name in CSV_COLUMNS]
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in cells:
        table.add_row(*row.values())
    show(console, table)
    if more := failing.count - len(cells):
        say(console, f"and {number_of(more, 'more image')}; a larger --limit shows them, --parquet OUT holds all")


def headline_of(failing: Failing, answers: Answers) -> str:
    """The question, and how many images it is about."""
    (result,) = answers.results
    images = number_of(result.classes[None].images, "image")
    at_most = "at most " if result.is_bound else ""
    return f"{question_in_words(result.question)}: the certificate of {at_most}{failing.count:,} of {images} fails"


def cells_of(failing: Failing, answers: Answers) -> list[Row]:
    """The images as people read them; places are top and left pixel of each patch."""
    names = answers.run.class_names

    def called(number: int | None) -> str:
        return DASH if number is None else name_of(number, names)

    return [
        {
            "shard": cell_text(row["shard"]),
            "key": cell_text(row["key"]),
            "label": called(row["label"]),
            "prediction": called(row["prediction"]),
            "slack": f"{row['slack']:,}",
            "weakest": DASH if row["weakest"] is None else " ".join(f"({top}, {left})" for top, left in row["weakest"]),
        }
        for row in failing.table.to_pylist()
    ]


def as_json(failing: Failing, answers: Answers) -> dict[str, Any]:
    """One object: the run, the question, how many images fail, and in `listed` one object for each that is kept."""
    (result,) = answers.results
    return {
        **describe_run(answers),
        **describe_question(result.question),
        "is_bound": result.is_bound,
        "images": result.classes[None].images,
        "without_votes": failing.without_votes,
        "without_label": failing.without_label if result.question.claim.of == Subject.label else None,
        "failing": failing.count,
        "listed": failing.table.to_pylist(),
    }


def as_records(failing: Failing) -> list[dict[str, Any]]:
    """Rows of CSV_COLUMNS; `weakest` is JSON."""
    rows = failing.table.to_pylist()
    return [row | {"weakest": row["weakest"] and json.dumps(row["weakest"])} for row in rows]


def notices_of(failing: Failing) -> list[str]:
    """What else a reader of the list must know."""
    notices = []
    for count, what in ((failing.without_votes, "votes"), (failing.without_label, "label")):
        if count:
            have, are = ("has", "is") if count == 1 else ("have", "are")
            notices.append(f"{number_of(count, 'image')} {have} no {what} and {are} not listed")
    return notices
