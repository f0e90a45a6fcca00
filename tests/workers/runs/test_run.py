"""A run on disk: how it is opened, what its job is, and how complete it is."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage, load_job
from smoothcert.pipeline.cli import app
from smoothcert.workers.runs.published import read_images, read_votes
from smoothcert.workers.runs.run import find_run, open_run, run_of
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.finished_runs import edit_json, file_of
from tests.helpers.html_tags import rows_and_lines


def test_a_run_says_what_it_is(any_run: Path) -> None:
    """Id, name, job and shards are those of run.json; the job is the job file that began it."""
    run = open_run(str(any_run))
    record = json.loads((any_run / "run.json").read_text())
    assert (run.url, run.run_id, run.name) == (str(any_run), any_run.name, "small")
    assert run.checkpoint_sha256 == record["checkpoint"]["sha256"]
    assert run.partial == (run.job.images.limit is not None)
    assert run.job == load_job(any_run.parents[1] / "job.yaml")
    assert [(task.index, task.shard.name, task.limit) for task in run.tasks] == [
        (index, shard["name"], shard["limit"]) for index, shard in enumerate(record["shards"])
    ]


def test_a_caller_may_give_a_run_or_its_path(run: Path) -> None:
    """Anything else is refused in a line."""
    opened = open_run(run)
    assert run_of(opened) is opened
    assert [run_of(run).url, run_of(str(run)).url] == [opened.url] * 2
    with pytest.raises(RequestError, match=r"^run: expected a Run, or its path or URL, not int$"):
        run_of(1)  # type: ignore[arg-type]


def test_a_shard_of_which_no_image_counts_has_no_task(run: Path) -> None:
    """The others keep their positions."""
    edit_json(run / "run.json", lambda record: record["shards"][0].update(limit=0))
    (task,) = open_run(str(run)).tasks
    assert (task.index, task.file_name) == (1, "votes/00001-01.parquet")


def test_a_run_is_complete_with_success_and_all_files(run: Path) -> None:
    """Neither is enough alone."""
    opened = open_run(str(run))
    assert opened.complete()
    assert opened.missing() == ()
    moved = shutil.move(file_of(run), run / "aside")
    assert not opened.complete()
    assert [task.index for task in opened.missing()] == [0]
    assert [task.index for task in opened.published_tasks()] == [1]
    assert opened.published() == {opened.tasks[1].file_name}
    shutil.move(moved, run / opened.tasks[0].file_name)
    (run / "_SUCCESS").unlink()
    assert opened.success() is None
    assert opened.missing() == ()
    assert not opened.complete()


def test_a_run_is_found_with_a_slash_behind_it(run: Path) -> None:
    """As listings show folders, those of S3, too."""
    assert open_run(f"{run}/").url == str(run)


def test_the_folder_above_a_run_names_its_runs(run: Path) -> None:
    """OUTPUT instead of OUTPUT/RUN_ID is the usual slip."""
    with pytest.raises(RequestError) as error:
        open_run(str(run.parent))
    name = f"name {run.parent}/RUN_ID, where RUN_ID is one of {run.name}"
    assert str(error.value) == f"{run.parent}: no run here: its folders hold some; {name}"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """It is not called a folder without a run."""
    with pytest.raises(RequestError, match=f"^{tmp_path}/nowhere: no run here: the folder does not exist; "):
        open_run(f"{tmp_path}/nowhere")
    with pytest.raises(RequestError, match=r": no run here: there is no run\.json; name OUTPUT/RUN_ID "):
        open_run(str(tmp_path))
    assert find_run(str(tmp_path), AnyStore(Storage())) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "Expecting property name"),
        ("[]", "it is not a JSON object"),
        ('{"run_id": "0"}', "name is missing"),
    ],
)
def test_a_damaged_run_json_is_one_line(run: Path, content: str, says: str) -> None:
    """It cannot be made again from the run."""
    (run / "run.json").write_text(content)
    with pytest.raises(RequestError) as error:
        open_run(str(run))
    assert re.fullmatch(
        rf"{run}/run\.json is damaged \({says}.*\); move the run away and start again", str(error.value)
    )


def _of_another_shard(record: dict[str, Any]) -> None:
    record["shards"][0]["size"] += 1


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda record: record["job"].pop("ablation"), "its job is not valid, first at ablation; restore it"),
        (lambda record: record["job"].update(more=1), "its job is not valid, first at more; restore it"),
        (lambda record: record["job"]["ablation"].update(size=5), "contradicts itself"),
        (_of_another_shard, "contradicts itself"),
        (lambda record: record["checkpoint"].update(sha256="0"), "contradicts itself"),
        (lambda record: record.update(run_id="0123456789abcdef"), "job does not give the id 0123456789abcdef"),
        (lambda record: record["identity"].update(votes_version=99), "contradicts itself"),
    ],
)
def test_the_job_of_a_run_gives_its_id(run: Path, edit: Callable[[dict[str, Any]], Any], says: str) -> None:
    """A run.json of which a part was changed is no basis for any answer."""
    edit_json(run / "run.json", edit)
    with pytest.raises(RequestError, match=says) as error:
        _ = open_run(str(run)).job
    assert str(error.value).startswith(f"{run}/run.json")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": 3}', "\x00"])
def test_a_damaged_success_is_one_line(run: Path, content: str) -> None:
    """By every command that reads it."""
    (run / "_SUCCESS").write_text(content)
    for command in (["status", str(run)], ["runs", str(run.parent)]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ") and "_SUCCESS is damaged" in result.stderr


def test_a_run_is_one_line_and_a_table(any_run: Path) -> None:
    """Which run it is and what its _SUCCESS says; a notebook shows the table."""
    run, success = open_run(any_run), json.loads((any_run / "_SUCCESS").read_text())
    title = f"Run {any_run.name}: small{', PARTIAL' if run.partial else ''}"
    assert repr(run) == f"<{title}>"
    rows, lines = rows_and_lines(run._repr_html_())
    facts = dict(rows)
    assert lines == [title]
    assert facts["folder"] == str(any_run)
    assert facts["state"] == "complete"
    assert facts["images"] == str(success["rows"])
    smoothed, patches = success["smoothed_accuracy"], success["certified"]
    assert facts["smoothed accuracy"] == ("-" if smoothed is None else f"{100 * smoothed:.2f} %")
    assert [facts[f"certified against {side} x {side}"] for side in (1, 2)] == [
        f"{100 * entry['exact']:.2f} %" for entry in patches
    ]


def test_the_table_of_an_unfinished_run_says_so(run: Path) -> None:
    """It has no figures yet."""
    (run / "_SUCCESS").unlink()
    file_of(run).unlink()
    facts = dict(rows_and_lines(open_run(run)._repr_html_())[0])
    assert (facts["state"], facts["shards"], "images" in facts) == ("UNFINISHED", "1 of 2", False)


def test_a_run_gives_its_images_and_votes(run: Path) -> None:
    """As `read_images` and `read_votes` do (published.py)."""
    opened = open_run(run)
    assert opened.images(["key", "label"]).equals(read_images(opened, ["key", "label"]))
    assert (opened.votes() == read_votes(opened)).all()
