"""The images whose certificate fails, against the file of all images, and against counting by hand."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from smoothcert.pipeline.cli import app
from smoothcert.workers.ablations import unions
from tests.helpers.judged_runs import CROP, image, judged_run
from tests.helpers.known_votes import write_run
from tests.helpers.masked_runs import FEW


def query(run: Path | str, *options: str) -> Result:
    return CliRunner().invoke(app, ["query", str(run), *options])


def listed(run: Path | str, *options: str) -> dict[str, Any]:
    """The JSON of --failing."""
    result = query(run, "--failing", "--json", *options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ([], lambda row: (row["shard"], int(row["key"].split("-")[1]))),  # as in the run
        (["--sort=slack"], lambda row: (row["slack"], row["shard"], row["key"])),
        (["--sort=-slack"], lambda row: (-row["slack"], row["shard"], row["key"])),
        (["--sort=key"], lambda row: (row["key"], row["shard"])),
    ],
    ids=["run", "slack", "-slack", "key"],
)
@pytest.mark.parametrize("limit", [None, 1, 7, 1000])
def test_images_are_those_of_the_file_without_a_certificate(tmp_path: Path, options, order, limit) -> None:
    """Each that has votes, in the order that was asked for; the limit cuts the list and not the counts."""
    run, out = write_run(tmp_path), tmp_path / "all.parquet"
    cut = [] if limit is None else [f"--limit={limit}"]
    answer = listed(run, "--patch=2", f"--parquet={out}", *options, *cut)
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == answer["images"] == 40
    failing = [row for row in rows if row["prediction"] is not None and not row["certified"]]
    assert 7 < len(failing) < 38
    names = ("shard", "key", "label", "prediction", "slack", "weakest")
    expected = [{name: row[name] for name in names} for row in sorted(failing, key=order)]
    assert answer["listed"] == expected[:limit]
    assert (answer["failing"], answer["without_votes"]) == (len(failing), 2)
    assert (answer["run_id"], answer["patch"], answer["rule"]) == (run.name, [2, 2], "exact")


def test_the_table_names_place_and_what_is_left(tmp_path: Path) -> None:
    """Columns of width 3 at stride 1: a patch of 1 x 1 touches 3 of 12 votes. Names of a tar print as they are."""
    lead_of_4 = [0] * 8 + [1] * 4  # at a column of three votes of class 0 the lead of 4 falls by 6, to -2
    images = [image("[b]sure[/b]", [0] * CROP), image("[b]weak[/b]", lead_of_4), image("broken", None)]
    run = judged_run(tmp_path, {"a.tar": [*images, image("weaker", [0] * 6 + [1] * 6, label=None)]}).url
    result = query(run, "--patch=1", "--failing", "--sort=slack", "--limit=1")
    title, headline, columns, _, row, rest = result.stdout.splitlines()
    assert title.startswith("judged, run ")
    assert headline.endswith("rule exact: the certificate of 2 of 4 images fails")
    assert columns.split() == ["shard", "key", "label", "prediction", "slack", "weakest"]
    assert row.split()[:5] == ["a.tar", "weaker", "-", "0", "-6"]
    assert rest.startswith("and 1 more image;")
    assert "1 image has no votes and is not listed" in result.stderr
    assert "[b]weak[/b]" in query(run, "--patch=1", "--failing").stdout
    assert "fails" in query(run, "--patch=1", "--failing", "--limit=9").stdout


def test_an_image_without_a_label_does_not_fail_for_its_label(tmp_path: Path) -> None:
    """It is counted beside the list; so are images without votes."""
    images = [image("right", [0] * CROP), image("wrong", [1] * CROP), image("unknown", [0] * CROP, label=None)]
    run = judged_run(tmp_path, {"a.tar": [*images, image("broken", None)]}).url
    answer = listed(run, "--patch=1", "--of=label")
    assert [row["key"] for row in answer["listed"]] == ["wrong"]
    assert (answer["failing"], answer["without_votes"], answer["without_label"]) == (1, 1, 1)
    result = query(run, "--patch=1", "--of=label", "--failing")
    assert "rule exact, top 1, of label: the certificate of 1 of 4 images fails" in result.stdout
    assert "notice: 1 image has no votes and is not listed\nnotice: 1 image has no label and is" in result.stderr
    assert listed(run, "--patch=1")["without_label"] is None


def test_a_mask_fails_where_none_that_hides_the_patch_is_uniform(tmp_path: Path) -> None:
    """Mask 0 alone hides a patch at the top left, and one vote of its row differs; detection asks only single masks."""
    sure = [0] * 10
    votes = [*sure[:5], 1, *sure[6:]]  # masks 0 and 2 hidden together show class 1
    margins = {"margins": [1.0] * 10}
    run = judged_run(
        tmp_path, {"a.tar": [image("weak", votes, **margins), image("sure", sure, **margins)]}, ablation=FEW
    )
    answer = listed(run.url)
    (row,) = answer["listed"]
    assert (row["key"], row["slack"], row["weakest"]) == ("weak", -1, [[0, 0]])
    assert (answer["certificate"], answer["stride"], answer["alarm_below"]) == ("recovery", None, None)
    detection = listed(run.url, "--certificate=detection", "--alarm-below=0.5")
    assert (detection["failing"], detection["alarm_below"]) == (0, 0.5)
    result = query(run.url, "--failing", "--certificate=detection")
    assert "certificate detection, rule exact, alarm below 0: the certificate of 0 of 2 images fails" in result.stdout


def test_a_bound_may_list_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and knows no places."""
    monkeypatch.setattr(unions, "MAX_EXACT", 0)
    run = write_run(tmp_path)
    assert "the certificate of at most 38 of 40 images" in query(run, "--patch=1", "--patches=9", "--failing").stdout
    answer = listed(run, "--patch=1", "--patches=9")
    assert answer["is_bound"]
    assert {row["weakest"] for row in answer["listed"]} == {None}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--patch=1..2", "--failing"], "--failing: answers one question, and these options make 2"),
        (["--failing"], "name one --patch"),  # the job has two
        (["--patch=1", "--sort=slack"], "are about the images of --failing; add it"),
        (["--patch=1", "--limit=3"], "are about the images of --failing; add it"),
        (["--patch=1", "--failing", "--by=class"], "--by and --failing exclude each other"),
        (["--patch=1", "--json", "--format=csv"], "--json and --format exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(tmp_path: Path, options: list[str], says: str) -> None:
    """Exit code 2, and nothing on stdout."""
    result = query(write_run(tmp_path), *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_run_that_holds_has_an_empty_list(tmp_path: Path) -> None:
    """In each form."""
    run = judged_run(tmp_path, {"a.tar": [image("sure", [0] * CROP)]}).url
    assert listed(run, "--patch=1")["listed"] == []
    assert "the certificate of 0 of 1 image fails" in query(run, "--patch=1", "--failing").stdout
    assert query(run, "--patch=1", "--failing", "--format=csv").stdout == "shard,key,label,prediction,slack,weakest\n"
