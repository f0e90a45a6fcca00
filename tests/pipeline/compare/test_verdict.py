"""What people read: the verdict first, losses before gains, no image left out without a word."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from rich.console import Console
from typer.testing import CliRunner

from smoothcert.manifests.gates import Gates
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.compare.comparison import Comparison, compare
from smoothcert.pipeline.compare.gates import evaluate
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.pipeline.compare.verdict import as_markdown, image_tables, notices_of, show_comparison, verdict_of
from smoothcert.workers.runs.run import open_run
from tests.helpers.finished_runs import edit_json, upload
from tests.helpers.judged_runs import image, judged_run
from tests.helpers.studies import attack
from tests.pipeline.compare.conftest import CLOSE, SURE, TwoRuns
from tests.pipeline.compare.test_gates import TODAY


@pytest.fixture
def found(two_runs: TwoRuns) -> Comparison:
    return compare(*two_runs, patches=[(2, 2)], tolerance=0.6, allow=[Reason.images])


def printed(show: Callable[[Console], None]) -> list[str]:
    out = io.StringIO()
    show(Console(file=out, width=200, markup=False))
    return out.getvalue().splitlines()


def test_the_verdict_says_what_was_lost_and_gained(found: Comparison) -> None:
    assert verdict_of(found) == (
        "2 certificates against 2 x 2 (exact rule) lost and 1 gained among 7 images: 71.43 % before, 42.86 % now "
        "(p = 1); 1 more lost and 0 more gained within the tolerance"
    )


def test_changes_that_rounding_explains_are_no_sign_of_a_loss(tmp_path: Path) -> None:
    """The verdict counts them apart, and their number is not significant."""
    keys, margins = [f"{number:02d}" for number in range(20)], [0.1] * 12
    base = judged_run(tmp_path / "a", {"a.tar": [image(key, SURE, margins=margins) for key in keys]})
    new = judged_run(tmp_path / "b", {"a.tar": [image(key, CLOSE, margins=margins) for key in keys]}, weights="1")
    assert verdict_of(compare(base, new, patches=[(1, 1)], tolerance=0.2)) == (
        "0 certificates against 1 x 1 (exact rule) lost and 0 gained among 20 images: 100.00 % before, 0.00 % now "
        "(p = 1); 20 more lost and 0 more gained within the tolerance"
    )


def test_the_verdict_begins_with_the_gates(found: Comparison) -> None:
    holds = {"metric": "smoothed", "min": 0.1}
    trips = {"metric": "certified", "patch": 2, "max_lost": 1}
    gates = Gates.model_validate({"gates": [holds]})
    assert verdict_of(found, evaluate(found, gates, TODAY)).startswith("gates hold (1 limit); 2 certificates")
    gates = Gates.model_validate({"gates": [trips, holds]})
    verdict = verdict_of(found, evaluate(found, gates, TODAY))
    assert verdict.startswith(
        "GATES TRIPPED (1 of 2 limits): certified against 2 x 2 (exact rule): 2 lost, at most 1 may be; 2 certificates"
    )


def test_a_run_compared_with_itself_is_named(two_runs: TwoRuns, tmp_path: Path) -> None:
    """A repeat in another folder, too."""
    assert "a run was compared with itself" in verdict_of(compare(two_runs.base, two_runs.base))
    shards = {"a.tar": [image("0", SURE)]}
    repeat = compare(judged_run(tmp_path / "one", shards), judged_run(tmp_path / "two", shards))
    assert verdict_of(repeat) == (
        "the runs have the same id, so one repeats the other: no certificates against 1 x 1 (exact rule) lost or "
        "gained among 1 image: 100.00 % before and now"
    )


def test_without_patches_the_verdict_is_about_predictions(tmp_path: Path) -> None:
    """With labels, how many are right; without, how many changed."""
    for label, says in (
        (0, "1 right prediction lost and 0 gained among 1 image"),
        (None, "1 prediction changed among"),
    ):
        images = {"shards": "unused", "label": "cls" if label == 0 else None}
        folder = tmp_path / str(label)
        base = judged_run(folder / "a", {"a.tar": [image("0", SURE, label)]}, images=images, patches=[])
        new = judged_run(folder / "b", {"a.tar": [image("0", [1] * 12, label)]}, weights="1", images=images, patches=[])
        assert verdict_of(compare(base, new)).startswith(says)


def test_notices_say_what_else_a_reader_must_know(found: Comparison) -> None:
    notices = "\n".join(notices_of(found))
    assert "7 images compared; shares are of these, differences in percentage points" in notices
    assert "3 images only in the base run, such as b.tar: edited" in notices
    assert "3 images only in the new run, such as b.tar: edited" in notices
    assert "the runs differ in images.shards, model.checkpoint_sha256" in notices
    assert "allowed (images): the runs differ in images.shards" in notices
    assert "changed: 1 prediction, 1 clean prediction, 22 votes (and 5 within the tolerance)" in notices
    assert "1 image certified against 2 x 2 (exact rule) in both runs, for different classes" in notices
    assert "1 more lost and 0 more gained within the tolerance" in notices


def test_losses_come_first_and_gains_stand_apart(found: Comparison) -> None:
    """With slack, weakest place and margin; what lies within the tolerance is not listed."""
    (lost, lost_rows), (gained, gained_rows) = image_tables(found)
    assert (lost, gained) == (
        "2 images lost a certificate of the exact rule",
        "1 image gained a certificate of the exact rule",
    )
    assert {row["key"] for row in lost_rows} == {"lost", "broken"}
    row = next(row for row in lost_rows if row["key"] == "lost")
    assert (row["slack"], row["weakest place"], row["margin"]) == ("4 -> -6", "0, 2", "1")
    assert [row["key"] for row in gained_rows] == ["gained"]


def test_at_most_twenty_images_are_shown(tmp_path: Path) -> None:
    """The title says so, and how to see all."""
    keys = [f"{number:02d}" for number in range(30)]
    base = judged_run(tmp_path / "a", {"a.tar": [image(key, SURE) for key in keys]})
    new = judged_run(tmp_path / "b", {"a.tar": [image(key, CLOSE) for key in keys]}, weights="1")
    ((title, rows),) = image_tables(compare(base, new, patches=[(1, 1), (2, 2)]))
    assert title == "30 images lost a certificate of the exact rule (the first 20; --parquet writes all)"
    assert [row["key"] for row in rows] == keys[:20]


def test_classes_have_the_names_that_the_new_run_knows(two_runs: TwoRuns) -> None:
    """In the tables of the terminal and of Markdown."""
    base, new = two_runs
    edit_json(Path(new.url, "run.json"), lambda record: record.update(class_names=["cat", "dog", "owl", "elk"]))
    found = compare(base, open_run(new.url), patches=[(2, 2)], allow=[Reason.images])
    (_, rows), _ = image_tables(found)
    row = next(row for row in rows if row["key"] == "lost")
    assert (row["label"], row["prediction"]) == ("0 (cat)", "0 (cat) -> 0 (cat)")
    assert "0 (cat) -&gt; 0 (cat)" in as_markdown(found)


def test_the_first_line_is_the_verdict(found: Comparison) -> None:
    lines = printed(lambda console: show_comparison(found, None, console))
    assert lines[0] == verdict_of(found)


def test_markdown_shows_names_as_they_are(tmp_path: Path) -> None:
    """A key cannot end a cell of a table, or be HTML, a link or emphasis."""
    key = "<script>alert(1)</script>|x\n`y`*z*[l](http://h)_u_"
    base = judged_run(tmp_path / "a", {"a.tar": [image(key, SURE)]})
    new = judged_run(tmp_path / "b", {"a.tar": [image(key, CLOSE)]}, weights="1")
    text = as_markdown(compare(base, new, patches=[(1, 1)]))
    assert "<script>" not in text
    assert r"x\\n\`y\`\*z\*\[l\](http://h)\_u\_ |" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table if "script" in line or "shard" in line}) == 1
    assert text.splitlines()[0].startswith("**1 certificate against 1 x 1")


def test_a_key_cannot_move_the_cursor(tmp_path: Path) -> None:
    """Each image is one line of the table."""
    key = "a\nb\x1b[2J"
    base = judged_run(tmp_path / "a", {"a.tar": [image(key, SURE)]})
    new = judged_run(tmp_path / "b", {"a.tar": [image(key, CLOSE)]}, weights="1")
    found = compare(base, new, patches=[(1, 1)])
    assert r"a\nb\x1b[2J " in printed(lambda console: show_comparison(found, None, console))[-1]


def test_the_command_ends_with_the_exit_code_of_the_gates(two_runs: TwoRuns, tmp_path: Path) -> None:
    """0 without gates and if they hold, 1 if one trips, 2 if the runs or the gates are wrong."""
    base, new = (run.url for run in two_runs)
    gates = tmp_path / "gates.yaml"

    def run(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["compare", base, new, "--patch", "2", *options])
        return result.exit_code, result.stdout + result.stderr

    assert run()[0] == 2
    assert "--allow images" in run()[1]
    assert run("--allow", "images")[0] == 0
    for lost, code in ((3, 0), (2, 1)):
        gates.write_text(f"gates: [{{metric: certified, patch: 2, max_lost: {lost}}}]")
        assert run("--allow", "images", "--gate", str(gates))[0] == code
    gates.write_text("gates: [{metric: certified, patch: 3, max_lost: 1}]")
    code, text = run("--allow", "images", "--gate", str(gates))
    assert (code, f"error: {gates}: gates[0]: the runs were not compared for" in text) == (2, True)


def test_attacks_on_both_runs_stand_side_by_side(tmp_path: Path) -> None:
    """On the terminal and in Markdown: both brackets, and what fell in one run alone, the new one first."""
    shards = {"a.tar": [image(key, CLOSE) for key in "abc"]}
    base, new = judged_run(tmp_path / "a", shards), judged_run(tmp_path / "b", shards, weights="1")
    attack(base, {"a": True, "b": False, "c": True})
    assert "attack" not in as_markdown(compare(base, new, patches=[(1, 1)]))
    attack(new, {"a": False, "b": True})
    found = compare(base, new, patches=[(1, 1)])
    row = ["2 x 2", "0.00 %", "33.33 %", "0.00 %", "50.00 % (1.26 to 98.74 %)"]
    fell = [["a.tar", key, "0", "2 x 2", role, "0 -> 1", "1, 2"] for key, role in (("b", "new"), ("a", "base"))]
    text, lines = as_markdown(found), printed(lambda console: show_comparison(found, None, console))
    for cells in (row, *fell):
        assert f"| {' | '.join(cells).replace('>', '&gt;')} |" in text
        assert any(" ".join(line.split()) == " ".join(cells) for line in lines)
    for line in (
        "2 images attacked with a 2 x 2 patch in both runs: 1 fell in the new run alone, 1 in the base alone",
        "2 images fell in one run and stood in the other",
    ):
        assert line in text
        assert any(line in one for one in lines)


def test_many_images_that_fell_are_cut(tmp_path: Path) -> None:
    shards = {"a.tar": [image(f"{number:02d}", CLOSE) for number in range(30)]}
    base, new = judged_run(tmp_path / "a", shards), judged_run(tmp_path / "b", shards, weights="1")
    for run, fell in ((base, False), (new, True)):
        attack(run, {f"{number:02d}": fell for number in range(30)})
    ((title, rows),) = image_tables(compare(base, new, patches=[(1, 1)]))
    assert (title, len(rows)) == (
        "30 images fell in one run and stood in the other (the first 20; --json has all)",
        20,
    )


def test_a_certified_image_that_fell_is_a_failure(tmp_path: Path) -> None:
    """Named on the terminal and in Markdown; the exit code is 1."""
    shards = {"a.tar": [image("a", SURE)]}
    runs = judged_run(tmp_path / "a", shards), judged_run(tmp_path / "b", shards, weights="1")
    for run in runs:
        attack(run, {"a": run is runs[0]})
    says = "failed: base: 1 certified image fell to a 2 x 2 patch (a.tar 0)"
    command = ["compare", *(run.url for run in runs), "--markdown", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, says in result.stdout.replace("\n", " ")) == (1, True)
    assert "base: 1 certified image fell to a 2 x 2 patch" in (tmp_path / "out").read_text()


def test_runs_in_a_bucket_are_compared(before_and_after: tuple[Path, Path], bucket: str, tmp_path: Path) -> None:
    """With the same JSON, but for their addresses, and with a page."""
    here = [str(run) for run in before_and_after]
    there = [upload(run, bucket) for run in before_and_after]
    texts = [CliRunner().invoke(app, ["compare", *runs, "--json"]).stdout for runs in (here, there)]
    for address, expected in zip(there, here, strict=True):
        texts[1] = texts[1].replace(address, expected)
    assert json.loads(texts[1]) == json.loads(texts[0])
    assert CliRunner().invoke(app, ["compare", *there, "--html", str(tmp_path / "page")]).exit_code == 0
    assert "Votes of what was lost" in (tmp_path / "page").read_text()


def test_the_command_prints_the_markdown_that_it_writes(two_runs: TwoRuns, tmp_path: Path) -> None:
    command = ["compare", *(run.url for run in two_runs), "--patch", "2", "--allow", "images"]
    result = CliRunner().invoke(app, [*command, "--format", "markdown", "--markdown", str(tmp_path / "out")])
    assert (result.exit_code, result.stdout) == (0, (tmp_path / "out").read_text())
    result = CliRunner().invoke(app, [*command, "--format", "markdown", "--json"])
    assert (result.exit_code, "exclude each other" in result.stderr) == (2, True)


def test_the_files_of_the_command_may_be_in_a_bucket(two_runs: TwoRuns, bucket: str) -> None:
    """All three; a second time only with --overwrite."""
    outputs = {option: f"s3://{bucket}/{option}" for option in ("--markdown", "--parquet", "--html")}
    written = [text for option, place in outputs.items() for text in (option, place)]
    command = ["compare", *(run.url for run in two_runs), "--patch", "2", "--allow", "images", *written]
    codes = [CliRunner().invoke(app, [*command, *more]).exit_code for more in ([], [], ["--overwrite"])]
    assert codes == [0, 2, 0]
    there = boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert sorted(one["Key"] for one in there) == sorted(outputs)


def test_the_command_writes_new_files(two_runs: TwoRuns, tmp_path: Path) -> None:
    """A file that is there already is refused before the comparison."""
    (tmp_path / "names").write_text("cat\ndog\nowl\nelk")
    out = {option: tmp_path / f"out{option}" for option in ("--markdown", "--parquet", "--html")}
    written = [text for option, path in out.items() for text in (option, str(path))]
    command = ["compare", *(run.url for run in two_runs), "--patch", "2", "--allow", "images"]
    result = CliRunner().invoke(app, [*command, *written, "--names", str(tmp_path / "names")])
    assert result.exit_code == 0
    assert "0 (cat)" in out["--html"].read_text()
    assert "0 (cat)" not in out["--markdown"].read_text()
    for option, path in out.items():
        result = CliRunner().invoke(app, ["compare", "no run", "no run", option, str(path)])
        assert (result.exit_code, f"{option} {path}: is there already" in result.stderr) == (2, True)
    result = CliRunner().invoke(app, [*command, "--names", str(tmp_path / "names")])
    assert (result.exit_code, "add --html OUT" in result.stderr) == (2, True)
