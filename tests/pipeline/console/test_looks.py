"""What is printed can be read: on terminals of 80 and 120 columns, piped, in colour and without."""

import builtins
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from smoothcert.manifests.job import load_job
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.console import looks
from smoothcert.pipeline.overview.tables import summary_table
from tests.helpers import jobs
from tests.helpers.finished_runs import RUNS, edit_json, finish
from tests.helpers.summaries import SUMMARY
from tests.helpers.terminal import on_terminal

LONG = "DeiT-S column 4 of [red]all[/red] :smile: images, second trial of ブロック, a name longer than a line is"
GRID = [f"--{option}" for option in ("patch=1", "patch=2x3", "patches=1", "patches=2", "stride=3", "stride=6")]
GRID += [f"--{option}" for option in ("tolerance=0", "tolerance=0.125", "rule=exact", "rule=margin", "by=class")]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one output: a long name, another checkpoint, a limit, none finished yet."""
    folder = tmp_path_factory.mktemp("output")
    jobs.write_shards(folder, shards=1)
    first = finish(tmp_path_factory.mktemp("named"), name=LONG)
    others = tmp_path_factory.mktemp("other")
    jobs.write_weights(others / "weights.pt", fill=0.1)
    for run in (first, finish(others), finish(tmp_path_factory.mktemp("limit"), **RUNS["limit"])):
        shutil.copytree(run, folder / "runs" / run.name)
    unfinished = finish(tmp_path_factory.mktemp("block"), **RUNS["block"])
    shutil.copytree(unfinished, folder / "runs" / unfinished.name)
    (folder / "runs" / unfinished.name / "_SUCCESS").unlink()
    return folder / "runs"


@pytest.fixture(scope="module")
def named(output: Path) -> Path:
    return next(path for path in output.iterdir() if LONG in json.loads((path / "run.json").read_text())["name"])


def piped(*arguments: object) -> str:
    return CliRunner().invoke(app, [str(argument) for argument in arguments]).output


def words(text: str) -> list[str]:
    return re.findall(r"[^\s│─┌┐└┘├┤┬┴┼]+", text)


@pytest.mark.parametrize("width", [80, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", [["query"], ["query", *GRID], ["verify"], ["status"], ["verify", "--replay=2"]])
def test_nothing_is_cut_or_broken_on_a_terminal(named: Path, width: int, command: list[str]) -> None:
    """No line is wider than the terminal, and every word of the piped output stands there whole."""
    if "--replay=2" in command:
        command = [*command, "--seed=1"]
    screen, whole = on_terminal(*command, named, width=width), piped(*command, named)
    shown = screen.rpartition("\r")[2]  # what a bar was drawn over
    assert all(cell_len(line) <= width for line in shown.splitlines() if " " in line.strip())
    moving = {"ago", "s"}  # the time since the last shard
    lost = {word for word in words(whole) if not re.fullmatch(r"[\d.]+", word)} - set(words(shown)) - moving
    assert not lost


@pytest.mark.parametrize("width", [80, 120])
def test_runs_of_one_job_can_be_told_apart(output: Path, width: int) -> None:
    """Date, checkpoint and its hash, ablation, limit, accuracy and state of each run, at every width and piped."""
    screen, whole = on_terminal("runs", output, width=width), piped("runs", output)
    assert all(cell_len(line) <= width for line in screen.splitlines())
    for run in output.iterdir():
        record = json.loads((run / "run.json").read_text())
        sha256, date = record["checkpoint"]["sha256"], record["created"][:10]
        for text in (screen, whole):
            own = text[text.index(run.name) :]
            own = own[: next((m.start() for m in re.finditer(r"\n[0-9a-f]{16} ", own)), None)]
            assert f"weights.pt {sha256[:12]}" in re.sub(r"\s+", " ", own)
            assert date in own
            assert f"{record['job']['ablation']['kind']} {record['job']['ablation']['size']} stride" in own
            assert ("incomplete" if not (run / "_SUCCESS").exists() else "complete") in own
            if record["partial"]:
                assert "PARTIAL" in own
                assert re.search(r"limit 9\b" if text is screen else r"\b9\b", own)
            if (run / "_SUCCESS").exists():
                assert looks.percent(json.loads((run / "_SUCCESS").read_text())["smoothed_accuracy"]) in own
    assert len(whole.splitlines()) == 2 + len([*output.iterdir()])  # piped, a run is a line


def test_a_title_is_a_line_of_its_own(named: Path) -> None:
    """However narrow its table is."""
    lines = piped("query", named, "--patch=1").splitlines()
    assert lines[0].startswith(f"{LONG}, run {named.name}, model weights.pt, SHA-256 ")
    assert lines[1] == "patch 1 x 1, patches 1, stride 3, tolerance 0, rule exact"
    assert piped("status", named).splitlines()[0] == LONG


def test_a_grid_is_divided_where_it_does_not_fit(named: Path) -> None:
    """More of the question becomes title until the columns fit; the answers and their order stay."""
    figures = re.compile(r"\d+\.\d\d %")
    narrow, wide = on_terminal("query", named, *GRID, width=80), piped("query", named, *GRID)
    assert wide.count("certified\n") == 1
    _, *tables = re.split(r"^(tolerance .*, rule .*)$", narrow, flags=re.MULTILINE)
    assert len(tables) == 2 * 4
    for title, table in zip(tables[::2], tables[1::2], strict=True):
        tolerance, rule = re.fullmatch("tolerance (.*), rule (.*)", title).groups()
        asked = re.compile(rf"^.* {re.escape(tolerance)} +{rule} .*%$", re.MULTILINE)
        same = [figures.findall(line) for line in asked.findall(wide)]
        assert same
        assert [found for line in table.splitlines() if (found := figures.findall(line))] == same


def test_colour_is_for_terminals(output: Path, named: Path) -> None:
    """Errors, PARTIAL and UNFINISHED are coloured on a terminal, not with NO_COLOR, in pipes or JSON."""
    partial = next(path for path in output.iterdir() if json.loads((path / "run.json").read_text())["partial"])
    unfinished = next(path for path in output.iterdir() if not (path / "_SUCCESS").exists())
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m(.*?)\x1b")
    for command, run, word in (
        ("query", "nowhere", "error:"),
        ("query", partial, "PARTIAL"),
        ("query", unfinished, "UNFINISHED"),
        ("verify", unfinished, "UNFINISHED"),
        ("status", unfinished, "incomplete"),
    ):
        assert word in coloured.findall(on_terminal(command, run, width=80, colours=True))
        assert not coloured.search(on_terminal(command, run, width=80, colours=True, NO_COLOR="1"))
        assert "\x1b" not in piped(command, run)
    screen = on_terminal("query", named, "--json", "--patch=1", width=80, colours=True)
    assert json.loads(screen)[0]["run_id"] == named.name


def test_what_cannot_be_printed_is_escaped(named: Path, tmp_path: Path) -> None:
    """A name with control characters does not steer the terminal."""
    run = Path(shutil.copytree(named, tmp_path / named.name))
    edit_json(run / "run.json", lambda record: record.update(name="a\x1b[31mb\udcff\x07"))
    for command in ("status", "query"):
        assert piped(command, run).startswith(r"a\x1b[31mb\udcff\x07")


@given(text=st.text(st.sampled_from("aé ブ-/.:[]"), max_size=200), width=st.integers(20, 60))
def test_lines_wrap_between_words(text: str, width: int) -> None:
    """No word is broken, none is lost, and a line is too wide only where one word is."""
    console = Console(width=width, markup=False, emoji=False)
    with console.capture() as capture:
        looks.say(console, text)
    lines = capture.get().splitlines()
    assert " ".join(lines).split() == text.split()
    assert all(cell_len(line) <= width or len(line.split()) == 1 for line in lines)


@given(st.floats(1e-9, 1e18))
def test_numbers_have_three_digits(value: float) -> None:
    """None becomes 0, and none is off by more than half of its third digit."""
    assert float(looks.digits(value).replace(",", "")) == pytest.approx(value, rel=0.0051)
    shown, unit = looks.flop_text(value).split()
    factor = 1000 ** ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"].index(unit)
    assert float(shown.replace(",", "")) * factor == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.02, "under 0.1 s"),
        (9.94, "9.9 s"),
        (59.6, "1 min 0 s"),  # not 60 s
        (3599.7, "1 h 0 min"),
        (1e7, "2,777 h 46 min"),
    ],
)
def test_spans(seconds: float, expected: str) -> None:
    """A unit that suits, and no 60 of a smaller one."""
    assert looks.span(seconds) == expected


def test_an_accuracy_that_does_not_exist_is_a_dash(tmp_path: Path) -> None:
    """In the table of `certify`; and a slow rate is not 0."""
    summary = replace(SUMMARY, labelled=False)
    job = load_job(jobs.write_job(tmp_path))
    console = Console(width=80)
    with console.capture() as capture:
        looks.show(console, summary_table(summary, job, "a title that is wider than its table is, PARTIAL", 0.0123))
    text = capture.get()
    assert text.splitlines()[0] == "a title that is wider than its table is, PARTIAL"
    assert re.search(r"clean accuracy +│ +- │", text)
    assert re.search(r"smoothed accuracy +│ +- │", text)
    assert re.search(r"images/s +│ 0\.0123 │", text)


def test_one_is_singular() -> None:
    """And thousands are separated."""
    assert [looks.number_of(count, "image") for count in (0, 1, 1234)] == ["0 images", "1 image", "1,234 images"]


def test_a_markdown_table_has_its_titles_and_escapes_its_cells() -> None:
    """Without rows there is no table."""
    assert looks.markdown_table([]) == []
    rows = [{"a": "1", "b c": "x|y"}, {"a": "*", "b c": ""}]
    assert looks.markdown_table(rows) == ["| a | b c |", "| --- | --- |", "| 1 | x&#124;y |", r"| \* |  |"]


def test_a_notebook_gets_the_text_of_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """rich would hand HTML to IPython instead, line by line."""

    class ZMQInteractiveShell:
        """What rich knows notebooks by."""

    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    assert Console().is_jupyter
    looks.say(looks.console_of(), "all right")
    assert capsys.readouterr().out == "all right\n"
