"""Runs a statement in SQL, and prints or writes the answer.

Not covered: which tables there are (relations.py).
"""

import csv
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TextIO

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Column, Table

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import one_line
from smoothcert.pipeline.console.looks import cell_text, markdown_text, number_of, say, show
from smoothcert.pipeline.sql.relations import FILES_OF_A_RUN, TABLES, unreadable
from smoothcert.workers.storage.output_file import OutputFile

MAX_ROWS = 40
"""Rows that the terminal shows."""
_ROWS_AT_ONCE = 10_000


class Answer:
    """What a statement returned: its columns, and its rows as they are asked for."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, once.

        Raises:
            RequestError: a value cannot be computed.
            RunError: a file is damaged.
        """
        with _errors_in_a_line():
            yield from self._reader

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, with values that JSON and CSV can hold."""
        for batch in self.batches():
            yield from _rows_of(batch)


def _rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    for row in batch.to_pylist():
        yield {name: _plain(value) for name, value in row.items()}


def ask(database: duckdb.DuckDBPyConnection, statement: str) -> Answer:
    """Run a statement; errors as for `Answer.batches`."""
    with _errors_in_a_line():
        _refuse_other_statements(statement)
        relation = database.sql(statement)
        assert relation is not None, "it is a query"
        if twice := [name for name in relation.columns if relation.columns.count(name) > 1]:
            raise RequestError(f"sql: two columns are named {twice[0]}; name one of them otherwise, with `as`")
        return Answer(relation.to_arrow_reader(_ROWS_AT_ONCE))


def _refuse_other_statements(statement: str) -> None:
    """Refuse all but one query: COPY ... TO could replace the files of a run."""
    kinds = [one.type for one in duckdb.extract_statements(statement)]
    if kinds != [duckdb.StatementType.SELECT]:
        raise RequestError(
            "sql: answers one query, and no COPY or other statement; write one, such as select count(*) from images; "
            "--parquet writes the answer"
        )


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    """DuckDB's errors, and those of Arrow that DuckDB hands on."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        text = one_line(error)
        is_of_the_user = isinstance(error, duckdb.Error) and not isinstance(error, duckdb.InvalidInputException)
        if f"'{FILES_OF_A_RUN}" in text and not is_of_the_user:
            raise unreadable(error) from None
        tables = f"; the tables are {', '.join(TABLES)}" if isinstance(error, duckdb.CatalogException) else ""
        raise RequestError(f"sql: {text}{tables}") from None


def show_answer(answer: Answer, console: Console) -> None:
    """Print a table of the first rows, and how many more there are."""
    rows: list[dict[str, Any]] = []
    count = 0
    for batch in answer.batches():
        rows += _rows_of(batch.slice(0, MAX_ROWS - len(rows)))
        count += batch.num_rows
    columns = [Column(cell_text(field.name), justify=_justify(field.type), overflow="fold") for field in answer.schema]
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in rows:
        table.add_row(*("null" if value is None else cell_text(str(value)) for value in row.values()))
    show(console, table)
    if more := count - len(rows):
        say(console, f"and {number_of(more, 'more row')}; --format, --json or --parquet gives all")


def write_json(answer: Answer, out: TextIO) -> None:
    """Write a list of objects, one per row and line."""
    separator = "["
    for row in answer.rows():
        out.write(separator + json.dumps(row, default=str))
        separator = ",\n"
    out.write("[]\n" if separator == "[" else "]\n")


def write_csv(answer: Answer, out: TextIO) -> None:
    """Write a header and a line per row; null is empty."""
    writer = csv.writer(out)
    writer.writerow(answer.schema.names)
    writer.writerows(row.values() for row in answer.rows())


def write_markdown(answer: Answer, out: TextIO) -> None:
    """Write a table with a line per row."""
    names = answer.schema.names
    out.write(f"| {' | '.join(map(markdown_text, names))} |\n{'| --- ' * len(names)}|\n")
    for row in answer.rows():
        cells = ("null" if value is None else str(value) for value in row.values())
        out.write(f"| {' | '.join(map(markdown_text, cells))} |\n")


def write_parquet(answer: Answer, output: OutputFile) -> None:
    """Write a file that appears when it is complete."""
    with output.opened() as file, pq.ParquetWriter(file, answer.schema, compression="zstd") as writer:
        for batch in answer.batches():
            writer.write_batch(batch)


def _plain(value: Any) -> Any:
    """A value that JSON and CSV can hold: bytes as hex digits, decimals (sums, too) as numbers, and numbers that are
    not finite as null.
    """
    match value:
        case bytes():
            return value.hex()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [_plain(one) for one in value]
        case dict():
            return {name: _plain(one) for name, one in value.items()}
    return value


def _justify(kind: pa.DataType) -> JustifyMethod:
    return "right" if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) else "left"
