"""`python -m scripts.docs` writes tables from runs, and says which runs are missing."""

import subprocess
import sys
from pathlib import Path

from scripts.docs.__main__ import write_table
from scripts.docs.tables import Row
from tests.helpers.house import HOUSE
from tests.scripts.docs.small_table import small_table


def _page(folder: Path) -> Path:
    page = folder / "page.md"
    page.write_text("# Title\n\n<!-- table: one -->\n| old |\n<!-- end -->\n\nText.\n")
    return page


def test_a_table_is_written_between_its_marks(finished: Path, tmp_path: Path) -> None:
    """With run id and checkpoint, and nothing else of the page changes."""
    page = _page(tmp_path)
    assert not [*write_table(small_table(Row({"name": "small"}, finished.name, stride=3)), finished.parent, tmp_path)]
    text = page.read_text()
    assert text.startswith(f"# Title\n\n<!-- table: one -->\nRun `{finished.name}`, checkpoint `")
    assert text.endswith("|\n<!-- end -->\n\nText.\n")
    assert "| small |" in text
    assert "old" not in text


def test_a_missing_run_leaves_the_table_as_it_is(finished: Path, tmp_path: Path) -> None:
    """One line says which run is missing, and by which commands it is made."""
    page = _page(tmp_path)
    before = page.read_text()
    missing = Row({"name": "b"}, "0123456789abcdef", "--limit 5", train="smoothcert finetune t.yaml")
    lines = [*write_table(small_table(Row({"name": "a"}, finished.name, stride=3), missing), finished.parent, tmp_path)]
    assert page.read_text() == before
    assert lines == [
        f"page.md, table one: run 0123456789abcdef is not in {finished.parent}; make it: smoothcert finetune t.yaml; "
        "then: smoothcert certify manifests/examples/cifar10-test.yaml --limit 5"
    ]


def test_exit_code_says_that_runs_are_missing(tmp_path: Path) -> None:
    """`make docs` without any run changes no page."""
    before = {page: page.read_text() for page in (HOUSE / "docs").glob("*.md")}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.docs", tmp_path], cwd=HOUSE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"run c81ef12e5dda6580 is not in {tmp_path}; make it: smoothcert certify" in done.stderr
    assert {page: page.read_text() for page in (HOUSE / "docs").glob("*.md")} == before
