"""Answers of SQL: a table for people, JSON, CSV and Parquet for machines, one line for a mistake."""

import csv
import io
import json
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from smoothcert.pipeline.cli import app
from smoothcert.pipeline.sql.answers import MAX_ROWS
from tests.helpers.judged_runs import image, judged_run

SURE = [0] * 12


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A hundred images; the key of one is hostile."""
    images = [image(f"{number:02d}", SURE) for number in range(99)]
    return judged_run(tmp_path, {"a.tar": [*images, image("[red]x[/red],\"'", SURE)]}).url


def sql(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["sql", *arguments])


def test_a_table_shows_the_first_rows_and_counts_the_others(run: str) -> None:
    result = sql(run, "select key, label from images order by key")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["key", "label"]
    assert result.stdout.splitlines()[-1] == "and 60 more rows; --format, --json or --parquet gives all"
    assert len(result.stdout.splitlines()) == 2 + MAX_ROWS + 1
    assert "[red]x[/red]" in sql(run, "select key from images where key > '99'").stdout


def test_json_is_a_list_of_objects(run: str) -> None:
    """Hashes are hex digits; no rows are an empty list."""
    rows = json.loads(
        sql(run, "select key, sha256, margins[1] as m, null as n from images order by key", "--json").stdout
    )
    assert len(rows) == 100
    assert rows[0] == {"key": "00", "sha256": b"00".ljust(32, b"\0").hex(), "m": 1.0, "n": None}
    assert json.loads(sql(run, "select key from images where false", "--json").stdout) == []
    assert json.loads(sql(run, "select 'nan'::float as x, 'inf'::double as y", "--json").stdout) == [
        {"x": None, "y": None}
    ]


def test_json_holds_numbers_and_hex_digits_at_any_depth(run: str) -> None:
    """A sum is a decimal number to DuckDB, and a list can hold what JSON cannot."""
    question = "select sum(label) as s, 1.5::decimal(3, 1) as d, first([sha256]) as l, {'x': 'nan'::float} as n"
    (row,) = json.loads(sql(run, f"{question} from images where key = '00'", "--json").stdout)
    assert row == {"s": 0, "d": 1.5, "l": [b"00".ljust(32, b"\0").hex()], "n": {"x": None}}


def test_a_cell_of_a_table_is_one_printable_line(run: str) -> None:
    """A key of a tar can hold what moves the cursor."""
    out = sql(run, """select e'a\\nb\\x1b[2J' as "x\ny" from images limit 1""").stdout
    assert out.splitlines()[0].strip() == r"x\ny"
    assert out.splitlines()[2].strip() == r"a\nb\x1b[2J"


def test_csv_has_a_header_and_every_row(run: str) -> None:
    rows = list(csv.reader(io.StringIO(sql(run, "select key, error from images order by key", "--format=csv").stdout)))
    assert rows[:2] == [["key", "error"], ["00", ""]]
    assert rows[-1] == ["[red]x[/red],\"'", ""]
    assert len(rows) == 101


def test_markdown_has_every_row_and_no_markup(run: str) -> None:
    """Nothing is left out, null is named, and what a name holds stays in its cell."""
    lines = sql(run, "select key, error from images order by key", "--format=markdown").stdout.splitlines()
    assert lines[:3] == ["| key | error |", "| --- | --- |", "| 00 | null |"]
    assert len(lines) == 102
    (line,) = sql(run, "select '<b>|x' || chr(10) || '*y*' as z", "--format=markdown").stdout.splitlines()[2:]
    assert line == r"| &lt;b&gt;&#124;x\\n\*y\* |"


def test_parquet_may_replace_a_file_and_go_to_a_bucket(run: str, bucket: str, tmp_path: Path) -> None:
    """With --overwrite; a file of a run is refused before the question is asked."""
    (tmp_path / "out").write_text("old")
    assert sql(run, "select key from images", "--parquet", str(tmp_path / "out"), "--overwrite").exit_code == 0
    assert sql(run, "select key from images", "--parquet", f"s3://{bucket}/a/out").exit_code == 0
    boto3.client("s3").download_file(bucket, "a/out", str(tmp_path / "there"))
    assert pq.read_table(tmp_path / "there").equals(pq.read_table(tmp_path / "out"))
    (votes,) = Path(run, "votes").iterdir()
    refused = sql(run, "selec 1", "--parquet", str(votes), "--overwrite")
    assert (refused.exit_code, "which no output may change" in refused.stderr) == (2, True)


def test_parquet_is_a_new_file(run: str, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    assert sql(run, "select key, votes from images", "--parquet", str(out)).exit_code == 0
    assert pq.read_table(out).num_rows == 100
    again = sql(run, "select key from images", "--parquet", str(out))
    assert (again.exit_code, "is there already; name a new file" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("selec 1", "sql: Parser Error: syntax error"),
        ("select * from votes", "the tables are images, certified, classes, ablations, runs"),
        ("select nothing from images", "sql: Binder Error: Referenced column"),
        (
            "select case when key > '98' then error('late') end from images order by key",
            "sql: Invalid Input Error: late",
        ),
        ("", "sql: answers one query, and no COPY"),
        ("select 1; select 2", "sql: answers one query, and no COPY"),
        ("copy (select 1) to 'evidence.csv'", "sql: answers one query, and no COPY"),
        ("explain analyze copy (select 1) to 'evidence.csv'", "sql: answers one query, and no COPY"),
        ("set memory_limit = '1GB'", "sql: answers one query, and no COPY"),
        ("select key, label as key from images", "sql: two columns are named key; name one of them otherwise"),
        ("select old_run_id from images", "sql: Binder Error: Referenced column"),
        ("select * from statement", "the tables are images, certified, classes, ablations, runs"),
    ],
)
def test_a_mistake_is_one_line(run: str, statement: str, says: str) -> None:
    result = sql(run, statement)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_damaged_file_is_named_as_such(run: str) -> None:
    """Pages have checksums; a file that was cut has no columns."""
    (file,) = Path(run, "votes").iterdir()
    data = file.read_bytes()
    for damaged in (data[:20] + bytes([data[20] ^ 255]) + data[21:], data[: len(data) // 2], b""):
        file.write_bytes(damaged)
        result = sql(run, "select * from images")
        assert result.exit_code == 1
        assert "sql: a file cannot be read" in result.stderr
        assert "`smoothcert verify` says which is damaged" in result.stderr


def test_the_command_needs_runs_and_one_form(run: str) -> None:
    result = sql("select 1")
    assert (result.exit_code, "name a run, then the query in quotes" in result.stderr) == (2, True)
    result = sql(run, "select 1", "--format=csv", "--json")
    assert (result.exit_code, "exclude each other" in result.stderr) == (2, True)
