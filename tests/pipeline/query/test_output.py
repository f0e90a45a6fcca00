"""CSV and Markdown say what JSON and the table say."""

import csv
import io
import json
from pathlib import Path

from typer.testing import CliRunner

from smoothcert.pipeline.cli import app
from tests.helpers.judged_runs import image, judged_run
from tests.helpers.known_votes import ask, write_run
from tests.helpers.studies import attack


def printed(run: Path | str, *options: str) -> str:
    result = CliRunner().invoke(app, ["query", str(run), *options])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def _text(value: object) -> str:
    return "" if value is None else str(value)


def test_csv_holds_the_values_of_json(tmp_path: Path) -> None:
    """A row per question and class; null is empty, and a patch has two columns."""
    for labelled in (True, False):
        run = write_run(tmp_path / str(labelled), labelled=labelled)
        options = ["--patch=1..2", "--patch=3x1", "--patches=1", "--patches=2", "--top=1", "--top=2", "--by=class"]
        rows = list(csv.DictReader(io.StringIO(printed(run, "--format=csv", *options))))
        answers = ask(run, *options)
        assert len(rows) == len(answers) == 3 * 2 * 2 * 5
        for row, answer in zip(rows, answers, strict=True):
            height, width = answer.pop("patch")
            assert answer.pop("accuracy_under_attack") is None  # it has columns only where there are attacks
            answer |= {"patch_height": height, "patch_width": width, "class_name": None}
            assert row == {name: _text(value) for name, value in answer.items()}


def test_markdown_holds_the_cells_of_the_table(tmp_path: Path) -> None:
    """A title, and a table with a row per question, which names the whole question."""
    run = write_run(tmp_path)
    title, _, head, rule, *rows = printed(run, "--patch=1..2", "--format=markdown").splitlines()
    assert title == printed(run, "--patch=1").splitlines()[0]
    names = ["patch", "patches", "stride", "tolerance", "rule", "images", "correct", "certified", "certified correct"]
    assert [cell.strip() for cell in head.split("|")[1:-1]] == names
    assert rule.count("---") == len(names)
    answers = ask(run, "--patch=1..2")
    shares = [
        [f"{answer[name] / 40:.2%}".replace("%", " %") for name in ("correct", "certified")] for answer in answers
    ]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[:1] + row[6:8] for row in cells] == [["1 x 1", *shares[0]], ["2 x 2", *shares[1]]]


def test_csv_and_markdown_have_columns_for_attacks(tmp_path: Path) -> None:
    """Those of JSON, empty where a question was not attacked; and the cell of the table."""
    run = judged_run(tmp_path, {"a.tar": [image("0", [0] * 7 + [1] * 5), image("1", [0] * 12)]})
    attack(run, {"0": True}, (2, 2))
    rows = list(csv.DictReader(io.StringIO(printed(run.url, "--patch=1..2", "--format=csv"))))
    assert list(rows[0])[-5:] == ["under_attack", "under_attack_low", "under_attack_high", "attacked", "fell"]
    assert [list(row.values())[-5:] for row in rows] == [[""] * 5, ["0.5", "0.5", "0.5", "1", "1"]]
    lines = printed(run.url, "--patch=1..2", "--format=markdown").splitlines()
    assert [line.split("|")[-2].strip() for line in (lines[2], *lines[4:])] == ["under attack", "-", "50.00 %"]


def test_images_with_hostile_names_stay_in_their_cells(tmp_path: Path) -> None:
    """In CSV they are read back as they were; Markdown shows no HTML and no other cell."""
    key = 'a|<b>,"x"\n2'
    run = judged_run(tmp_path, {"a.tar": [image(key, [0] * 6 + [1] * 6)]}).url
    (row,) = csv.DictReader(io.StringIO(printed(run, "--patch=1", "--failing", "--format=csv"), newline=""))
    (known,) = json.loads(printed(run, "--patch=1", "--failing", "--json"))["listed"]
    assert row["key"] == known["key"] == key
    assert json.loads(row["weakest"]) == known["weakest"]
    *_, line = printed(run, "--patch=1", "--failing", "--format=markdown").splitlines()
    assert line.count("|") == 7
    assert "<b>" not in line
