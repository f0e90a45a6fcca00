"""Where the answers of `smoothcert query` go: to stdout as a table, JSON, CSV or Markdown, and to a file.

Not covered: what the answers look like (answers.py, failing.py).
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from rich.console import Console

from smoothcert.pipeline.console.looks import markdown_table, markdown_text
from smoothcert.pipeline.query import answers as answers_in
from smoothcert.pipeline.query import failing as failing_in
from smoothcert.pipeline.query.answering import Answers
from smoothcert.pipeline.query.answers import Row
from smoothcert.pipeline.query.failing import Failing


def write(answers: Answers, failing: Failing | None, form: str, console: Console) -> None:
    """Write the answers, or the images whose certificate fails, to the console's stream.

    Args:
        answers: to one question or several.
        failing: the images, if these were asked for.
        form: `table`, `json`, `csv` or `markdown`.
        console: where tables go, and everything else without its looks.
    """
    out = console.file
    if failing is None:
        match form:
            case "json":
                print(json.dumps(answers_in.as_json(answers)), file=out)
            case "csv":
                _write_csv(answers_in.csv_columns(answers), answers_in.as_records(answers), out)
            case "markdown":
                print(_as_markdown([answers_in.title_of(answers)], answers_in.cells_of(answers)), file=out)
            case _:
                answers_in.show_answers(answers, console)
    else:
        match form:
            case "json":
                print(json.dumps(failing_in.as_json(failing, answers)), file=out)
            case "csv":
                _write_csv(failing_in.CSV_COLUMNS, failing_in.as_records(failing), out)
            case "markdown":
                lines = [answers_in.title_of(answers), failing_in.headline_of(failing, answers)]
                print(_as_markdown(lines, failing_in.cells_of(failing, answers)), file=out)
            case _:
                failing_in.show_failing(failing, answers, console)


def notices_of(answers: Answers, failing: Failing | None) -> list[str]:
    """What else a reader must know."""
    return answers_in.notices_of(answers) + ([] if failing is None else failing_in.notices_of(failing))


def _write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], out: IO[str]) -> None:
    """A header and a line per row; null is empty."""
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    writer.writerows(rows)


def _as_markdown(lines: Sequence[str], rows: Sequence[Row]) -> str:
    """Lines, then a table."""
    one_line = [{title.replace("\n", " "): cell for title, cell in row.items()} for row in rows]
    parts = [*map(markdown_text, lines), "\n".join(markdown_table(one_line))]
    return "\n\n".join(part for part in parts if part)
