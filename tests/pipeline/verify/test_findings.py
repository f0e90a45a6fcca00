"""Every problem is a finding with its place, and a line."""

from pathlib import Path

import pytest

from smoothcert.pipeline.verify.check import verify
from smoothcert.pipeline.verify.findings import Finding, shown
from tests.helpers.finished_runs import file_of, rows_of, write


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (
            Finding("votes/a b.parquet", "belongs to no shard of this run"),
            "votes/a b.parquet: belongs to no shard of this run",
        ),
        (Finding("run.json", "is x", "identity.clean"), "run.json identity.clean: is x"),
        (Finding("votes/a.parquet", "is x", column="label"), "votes/a.parquet column label: is x"),
        (
            Finding("votes/a.parquet", "is x", row=3, key="k", column="label"),
            "votes/a.parquet row 3 key 'k' column label: is x",
        ),
        (Finding("votes/a.parquet", "", "lacks key 'k' of the tar"), "votes/a.parquet lacks key 'k' of the tar"),
    ],
)
def test_a_line_names_the_place_and_what_is_wrong(finding: Finding, line: str) -> None:
    """File, entry or row, column, then the text."""
    assert finding.line == line


def test_findings_have_their_place(run: Path) -> None:
    """File, row, key and column are there to be read, without parsing a line."""
    rows = rows_of(file_of(run))
    rows[1]["clean_margin"] = -1.0
    write(file_of(run), rows, renew=True)
    (finding,) = verify(str(run)).findings
    assert (finding.file, finding.row, finding.key, finding.column) == (
        "votes/00000-00.parquet",
        1,
        "0001",
        "clean_margin",
    )


def test_all_that_is_wrong_is_named(run: Path) -> None:
    """Problems of several rows, columns and files are all there, each once."""
    for number in (0, 1):
        rows = rows_of(file_of(run, number))
        for row in rows[:2]:
            row["count"] += 1
            row["clean_margin"] = -1.0
        write(file_of(run, number), rows, renew=True)
    problems = verify(str(run)).problems
    assert len(problems) == len(set(problems)) == 8


def test_problems_of_a_whole_column_are_counted(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first are named, the others counted."""
    monkeypatch.setattr("smoothcert.pipeline.verify.findings.MAX_REPORTED_ROWS", 2)
    rows = rows_of(file_of(run))
    for row in rows:
        row["clean_margin"] = -1.0
    write(file_of(run), rows, renew=True)
    *named, counted = verify(str(run)).problems
    assert len(named) == 2
    assert counted == "votes/00000-00.parquet column clean_margin: 4 more rows are wrong"


def test_a_finding_is_one_line() -> None:
    """Names of files and entries come from run.json, which may hold anything."""
    assert (
        Finding("votes/a\nb", "is missing", "metadata x\udcff").line == "'votes/a\\nb' 'metadata x\\udcff': is missing"
    )


def test_mappings_are_shown_in_one_order() -> None:
    """Expected and found can be compared by eye."""
    assert shown({"b": 1, "a": {"d": 2, "c": 3}}) == "{'a': {'c': 3, 'd': 2}, 'b': 1}"
    assert shown("plain text") == "plain text"
