"""`python -m scripts.docs` writes tables from runs between marks, and says which runs are missing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from scripts.docs.__main__ import write_table
from scripts.docs.figures import MissingRunError, figures_of
from scripts.docs.pages import table_in, with_table
from scripts.docs.tables import Row, Table
from tests.helpers.house import HOUSE


def _table(*rows: Row, **changes: object) -> Table:
    columns = ("name", "on ablations", "smoothed")
    return Table("one", "page.md", columns, (1, 2), rows)._replace(**changes)


def _page(folder: Path) -> Path:
    page = folder / "page.md"
    page.write_text("# Title\n\n<!-- table: one -->\n| old |\n<!-- end -->\n\nText.\n")
    return page


def test_figures_are_those_of_the_rows(finished: Path) -> None:
    """Counted from the columns of the table of votes, for exact and margin rule."""
    table = _table(Row({"name": "small"}, finished.name, stride=3), both_rules=True)
    figures = figures_of(table, table.rows[0], finished.parent)
    rows = pq.read_table(finished / "votes").to_pylist()
    right = [row for row in rows if row["prediction"] is not None and row["prediction"] == row["label"]]
    voted = [row for row in rows if row["votes"] is not None and row["label"] is not None]

    def share(of: list[object]) -> str:
        return f"{100 * len(of) / len(rows):.2f}"

    assert figures.images == len(rows)
    assert figures.cells["smoothed"] == share(right)
    votes_right = np.mean([[vote == row["label"] for vote in row["votes"]] for row in voted])
    assert figures.cells["on ablations"] == f"{100 * votes_right:.2f}"
    for side in (1, 2):
        exact = [row for row in right if row["max_certified_patch"] >= side]
        margin = [row for row in right if row["max_margin_certified_patch"] >= side]
        assert figures.cells[f"{side} x {side}"].replace("*", "") == f"{share(exact)} / {share(margin)}"


def test_a_coarser_stride_counts_its_own_votes(finished: Path) -> None:
    """Every second vote of a run at stride 3 is one of stride 6."""
    table = _table(Row({"name": "coarse"}, finished.name, stride=6))
    figures = figures_of(table, table.rows[0], finished.parent)
    rows = [row for row in pq.read_table(finished / "votes").to_pylist() if row["votes"] and row["label"] is not None]
    right = np.mean([[vote == row["label"] for vote in row["votes"][::2]] for row in rows])
    assert figures.cells["on ablations"] == f"{100 * right:.2f}"


def test_a_table_is_written_between_its_marks(finished: Path, tmp_path: Path) -> None:
    """With run id and checkpoint, and nothing else of the page changes."""
    page = _page(tmp_path)
    assert not [*write_table(_table(Row({"name": "small"}, finished.name, stride=3)), finished.parent, tmp_path)]
    text = page.read_text()
    assert text.startswith(f"# Title\n\n<!-- table: one -->\nRun `{finished.name}`, checkpoint `")
    assert text.endswith("|\n<!-- end -->\n\nText.\n")
    assert "| small |" in text
    assert "old" not in text


def test_votes_that_differ_are_counted_against_the_first_row(finished: Path, tmp_path: Path) -> None:
    """A run differs from itself in no vote, and cannot be compared with one of other images."""
    row = Row({"name": "small"}, finished.name, stride=3)
    table = _table(row, columns=("name", "votes that differ"))
    assert figures_of(table, row, finished.parent).cells["votes that differ"] == "0"


def test_a_missing_run_leaves_the_table_as_it_is(finished: Path, tmp_path: Path) -> None:
    """One line says which run is missing, and by which commands it is made."""
    page = _page(tmp_path)
    before = page.read_text()
    missing = Row({"name": "b"}, "0123456789abcdef", "--limit 5", train="smoothcert finetune t.yaml")
    lines = [*write_table(_table(Row({"name": "a"}, finished.name, stride=3), missing), finished.parent, tmp_path)]
    assert page.read_text() == before
    assert lines == [
        f"page.md, table one: run 0123456789abcdef is not in {finished.parent}; make it: smoothcert finetune t.yaml; "
        "then: smoothcert certify manifests/examples/cifar10-test.yaml --limit 5"
    ]


def test_an_unfinished_run_is_missing(run: Path) -> None:
    """Figures of some of the images are not those of the table."""
    (run / "_SUCCESS").unlink()
    row = Row({"name": "small"}, run.name, stride=3)
    with pytest.raises(MissingRunError, match="not finished"):
        figures_of(_table(row), row, run.parent)


@pytest.mark.parametrize("page", ["no marks", "<!-- table: one -->\n<!-- end -->\n" * 2])
def test_a_page_has_the_marks_once(page: str) -> None:
    """Else the error names page and mark."""
    with pytest.raises(ValueError, match=r"page\.md: expected the mark <!-- table: one --> once"):
        with_table(page, _table(), "")
    assert table_in("<!-- table: one -->\nx\n<!-- end -->", _table()) == "x\n"


def test_exit_code_says_that_runs_are_missing(tmp_path: Path) -> None:
    """`make docs` without any run changes no page."""
    before = {page: page.read_text() for page in (HOUSE / "docs").glob("*.md")}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.docs", tmp_path], cwd=HOUSE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"run c81ef12e5dda6580 is not in {tmp_path}; make it: smoothcert certify" in done.stderr
    assert {page: page.read_text() for page in (HOUSE / "docs").glob("*.md")} == before
