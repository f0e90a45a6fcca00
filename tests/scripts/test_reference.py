"""The reference pages are what the code gives, and the code's files are what the pages say."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from scripts.reference import FOLDER, pages
from smoothcert.pipeline.cli import app
from smoothcert.workers.certificates.double_masking import DOUBLE_MASKING
from smoothcert.workers.runs.votes_table import schema
from tests.helpers.finished_runs import file_of
from tests.helpers.pages import EXAMPLES


@pytest.mark.parametrize("name", ["files.md", "job.md", "suite.md"])
def test_a_page_is_what_its_script_writes(name: str) -> None:
    """Otherwise: python -m scripts.reference."""
    assert (FOLDER / name).read_text(encoding="utf-8") == pages()[name]


@pytest.mark.parametrize(("name", "least"), [("files.md", 90), ("job.md", 90), ("suite.md", 5)])
def test_every_key_has_a_meaning_and_a_type(name: str, least: int) -> None:
    """No sentence is missing beside a field."""
    lines = [line for line in (FOLDER / name).read_text().splitlines() if line.startswith("| `")]
    assert len(lines) >= least
    for line in lines:
        cells = [cell.strip() for cell in re.split(r" \| ", line.strip("| "))]
        assert cells[-1].endswith(".") or cells[-1].endswith(")"), line
        assert "any value" not in line


def _keys(title: str, page: str = "files.md", number: int = 0) -> dict[str, str]:
    """The lines of a table below a heading by their keys."""
    section = re.split(r"^#+ ", (FOLDER / page).read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.partition("\n")[0].strip() == title][:1]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return {line.split("`")[1]: line for line in tables[number].splitlines()[2:]}


def test_a_run_has_what_the_page_says(finished: Path) -> None:
    """Columns in order, with what may be null; and the keys of each JSON file."""
    file = pq.ParquetFile(file_of(finished))
    columns = _keys("votes/00000-NAME.parquet")
    assert list(columns) == file.schema_arrow.names
    columns |= _keys("votes/00000-NAME.parquet", number=1)
    of_masks = schema(9, DOUBLE_MASKING)
    assert list(columns) == of_masks.names
    for field in (*file.schema_arrow, *of_masks):
        assert columns[field.name].split(" | ")[2] == ("yes" if field.nullable else "no")
    for title, content, number in (
        ("votes/00000-NAME.parquet", file.metadata.metadata[b"smoothcert"], 2),
        ("run.json", (finished / "run.json").read_bytes(), 0),
        ("_SUCCESS", (finished / "_SUCCESS").read_bytes(), 0),
    ):
        listed = {key for key in _keys(title, number=number) if "." not in key}
        assert json.loads(content).keys() <= listed


def test_other_files_have_what_the_page_says(before_and_after: tuple[Path, Path], tmp_path: Path) -> None:
    """Of query and compare: columns, types and, in the file itself, their meanings."""
    base, new = map(str, before_and_after)
    for title, command in (("query --parquet OUT", ["query", base]), ("compare --parquet OUT", ["compare", base, new])):
        out = tmp_path / command[0]
        result = CliRunner().invoke(app, [*command, "--patch", "2", "--parquet", str(out)])
        assert result.exit_code == 0, result.output
        schema, lines = pq.read_schema(out), _keys(title)
        assert list(lines) == schema.names
        for field in schema:
            assert lines[field.name].endswith(
                f"| {'yes' if field.nullable else 'no'} | {field.metadata[b'meaning'].decode()} |"
            )
        assert pq.read_table(out).num_rows > 0


def test_the_page_has_every_key_of_the_examples() -> None:
    """Of job files; each value of a key with few values is among them."""
    for path in EXAMPLES.glob("*.yaml"):
        job = yaml.safe_load(path.read_text())
        if "patches" not in job or "epochs" in job:
            continue
        for key, value in job.items():
            assert key in _keys("Job files", "job.md")
            for name in value if isinstance(value, dict) else ():
                kinds = {"ablation": "`ablation` of kind `column`, `row`, `block`"}
                assert name in _keys(kinds.get(key, f"`{key}`"), "job.md")
