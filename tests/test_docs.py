"""The documentation is true: tables are those of their runs, commands parse and print what is shown, paths exist."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from scripts.docs.figures import MissingRunError, figures_of
from scripts.docs.pages import head_of, markdown_of, table_in
from scripts.docs.tables import TABLES, Table
from scripts.fault_table import HEADER
from smoothcert.pipeline.cli import app
from tests.helpers.house import HOUSE
from tests.helpers.pages import EXAMPLES, PAGES, README, commands, sections, shown_output

SHIPPED_SHA256 = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(EXAMPLES.glob("*.safetensors"))]
RUNS = Path(os.environ.get("SMOOTHCERT_RUNS", HOUSE / "runs"))
HASH = re.compile(r"`([0-9a-f]{12}|[0-9a-f]{64})`")  # run ids have 16 digits
FIGURES = re.compile(r"^\|.*\d", re.MULTILINE)
CODE = re.compile(r"(?<!`)`([^`\s]+)`(?!`)")

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
by_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{Path(table.page).stem}-{table.name}")


@by_page
def test_tables_name_the_shipped_checkpoint(page: Path) -> None:
    """A section with figures of the shipped checkpoint names it by its hash; hashes outside of rows are its hash."""
    for section in sections(page):
        prose = "\n".join(line for line in section.splitlines() if not line.startswith("|"))
        title = section.partition("\n")[0]
        for digits in HASH.findall(prose):
            known = any(sha256.startswith(digits) for sha256 in SHIPPED_SHA256)
            assert known, f"{title}: figures of another checkpoint; run `make docs`"
        if FIGURES.search(section) and re.search("shipped", section, re.IGNORECASE):
            names = " or ".join(f"`{sha256[:12]}`" for sha256 in SHIPPED_SHA256)
            assert HASH.search(section), f"{title}: name the shipped checkpoint as {names}"


def test_pages_with_figures_of_the_checkpoint_are_known() -> None:
    """The rule above is asked of the pages that have such figures."""
    named = {page.name for page in PAGES for section in sections(page) if HASH.search(section)}
    assert named == {
        "attacks.md",
        "certificates.md",
        "compare.md",
        "performance.md",
        "report.md",
        "results.md",
        "robustness.md",
        "cifar10_vit_p4_column4.md",
        "cifar10_vit_p4_masks.md",
    }


@by_table
def test_table_is_what_its_runs_give(table: Table) -> None:
    """`make docs` would change nothing. Skipped where a run is missing: SMOOTHCERT_RUNS names the folder of runs."""
    try:
        rows = [figures_of(table, row, RUNS) for row in table.rows]
    except MissingRunError as missing:
        pytest.skip(f"{missing}; SMOOTHCERT_RUNS names another folder")
    assert table_in((HOUSE / table.page).read_text(), table) == markdown_of(table, rows)


@by_table
def test_table_has_the_rows_of_the_script(table: Table) -> None:
    """Columns, labels, run ids and the shipped checkpoint of each row, whether or not the runs are here."""
    text = table_in((HOUSE / table.page).read_text(), table)
    head, _, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    assert head == head_of(table)
    assert len(lines) == len(table.rows)
    for line, row in zip(lines, table.rows, strict=True):
        cells = dict(zip(head, line, strict=True))
        assert all(cells[name] == label for name, label in row.labels.items() if name in table.columns)
        assert f"`{row.run}`" in (text if table.is_of_one_run else cells["run"])
        if row.train is None:
            named = text if table.is_of_one_run else cells["checkpoint"]
            assert any(f"`{sha256[:12]}`" in named for sha256 in SHIPPED_SHA256)


def test_reliability_has_the_text_of_its_script() -> None:
    """docs/reliability.md is written by scripts/fault_table.py: only date, versions and lines of the table differ."""
    text = re.escape(HEADER.format(date="DATE", ray="RAY", cpus="CPUS"))
    pattern = re.sub("DATE|RAY|CPUS", r"[\\w.-]+", text)
    assert re.match(pattern, (HOUSE / "docs" / "reliability.md").read_text())


def test_every_mark_is_a_table_of_the_script() -> None:
    """No page has marks between which nothing is written."""
    marks = {(str(page.relative_to(HOUSE)), name) for page in PAGES for name in _marks(page)}
    assert marks == {(table.page, table.name) for table in TABLES}


def _marks(page: Path) -> list[str]:
    return re.findall(r"<!-- table: (.*?) -->", page.read_text())


@by_page
def test_commands_parse(page: Path) -> None:
    """Every `smoothcert` command on the pages has a name, options and values that the command line takes."""
    group = typer.main.get_command(app)
    for arguments, is_whole in commands(page):
        try:
            name, *rest = arguments
            command = group.get_command(click.Context(group), name)
            assert command is not None, f"no command {name}"
            if is_whole:
                command.make_context(name, rest)
            else:
                command.make_parser(click.Context(command)).parse_args(rest)
        except Exception as error:
            pytest.fail(f"smoothcert {shlex.join(arguments)}: {error!r}")


def test_commands_are_found() -> None:
    """The rule above is asked of every command that there is."""
    group = typer.main.get_command(app)
    shown = {command.arguments[0] for command in commands(README)}
    assert shown == {*group.list_commands(click.Context(group))}
    assert sum(len([*commands(page)]) for page in PAGES) > 50


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What `make demo` runs, in a folder of its own: the folder, and what it printed."""
    pytest.importorskip("foolbox", reason="the demo's images come with foolbox")
    folder = tmp_path_factory.mktemp("demo")
    return folder, _output_of("smoothcert demo", folder)


def _output_of(command: str, folder: Path) -> str:
    name, *arguments = shlex.split(command)
    assert name == "smoothcert"
    environment = os.environ | {"RAY_ADDRESS": "local"}
    done = subprocess.run(
        [sys.executable, "-m", name, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_shows_the_table_of_the_demo(demo: tuple[Path, str]) -> None:
    """All of the table but the speed, which differs between machines."""
    table = re.search(r"^demo,.*?└[^\n]*", demo[1], re.DOTALL | re.MULTILINE)
    assert table
    without_speed = re.sub(r"├[^\n]*\n│ images/s[^\n]*\n", "", table[0])
    shown = re.search(r"(?:^ {4}.*\n)+", README.read_text(), re.MULTILINE)
    assert shown
    assert [line.strip() for line in shown[0].splitlines()] == without_speed.splitlines()


@pytest.mark.parametrize("command", shown_output(README))
def test_readme_shows_what_its_commands_print(command: str, demo: tuple[Path, str]) -> None:
    """Commands after a `$` work in the folder of the demo, and print the lines below them."""
    assert _output_of(command, demo[0]) == shown_output(README)[command]


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    """A link within the repository names a file that is there."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@by_page
def test_paths_exist(page: Path) -> None:
    """A file of the repository that a page names is there."""
    for path in CODE.findall(page.read_text()):
        if re.match(r"(manifests|workers|pipeline|tests|scripts|benchmarks|docs|src)/[\w./]+\.(py|md|yaml|sh)$", path):
            assert (HOUSE / path).exists(), path


@by_page
def test_tests_exist(page: Path) -> None:
    """A test that a page names is there."""
    tests = "".join(file.read_text() for file in (HOUSE / "tests").rglob("test_*.py"))
    for name in CODE.findall(page.read_text()):
        if re.fullmatch(r"test_\w+", name):
            assert f"def {name}(" in tests, name
