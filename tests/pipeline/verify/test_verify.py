"""A sound run passes, and is counted as the engine counts it; the command; independence."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from smoothcert.manifests.job import Ablation, load_job
from smoothcert.pipeline.certify.plan import begin, make_plan
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.certificates.rules import certify
from smoothcert.workers.runs import votes_table
from tests.helpers import jobs
from tests.helpers.finished_runs import (
    RUNS,
    file_of,
    finish,
    rows_of,
    write,
)
from tests.helpers.house import HOUSE
from tests.helpers.tars import tar_of, write_tar


def test_a_sound_run_is_all_right(any_run: Path) -> None:
    """Columns, rows and blocks, both edges, with and without labels, clean votes, resize and limit."""
    rows = 9 if "limit" in any_run.parts[-3] else 13
    report = verify(f"{any_run}/")
    assert (report.problems, report.notices) == ((), ())
    assert (report.run_id, report.files, report.rows) == (any_run.name, 2, rows)


@pytest.mark.parametrize("kind", ["column", "row", "block"])
@pytest.mark.parametrize(
    ("size", "stride", "edges"), [(4, 1, "wrap"), (5, 3, "wrap"), (3, 5, "inside"), (16, 6, "wrap")]
)
def test_it_counts_as_the_engine_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: int, stride: int, edges: str
) -> None:
    """
    Two implementations that share no code agree on prediction, runner-up and both max columns.
    Oracle: certificates.py, on votes from unanimous to random, five classes.
    """
    jobs.write_shards(tmp_path, shards=1)
    write_tar(tmp_path / "tars", tar_of(jobs.samples(0, 1)) + bytes(512 * 1200), "00.tar")
    ablation = Ablation(kind=kind, size=size, stride=stride, edges=edges)
    plan = make_plan(load_job(jobs.write_job(tmp_path), [f"ablation={ablation.model_dump()}", "model.classes=5"]))
    begin(plan)
    geometry, random = Geometry.of(ablation, jobs.CROP, jobs.CROP), np.random.default_rng(size)
    A = geometry.num_ablations
    votes = np.where(
        random.random((300, A)) < random.random((300, 1)) ** 3,
        random.integers(0, 5, (300, A)),
        random.integers(0, 5, (300, 1)),
    )
    certificates = {name: values.tolist() for name, values in vars(certify(votes, geometry, classes=5)).items()}
    row = {
        "shard": "00.tar",
        "image_bytes": 100,
        "sha256": bytes(32),
        "status": "ok",
        "label": 0,
        "width": 16,
        "height": 16,
    }
    row |= {"clean_prediction": 0, "clean_margin": 1.0, "margins": [1.0] * A}
    rows = [
        row
        | {"key": str(index), "index": index, "image_offset": 512 + 1024 * index, "votes": votes[index].tolist()}
        | {name: values[index] for name, values in certificates.items()}
        for index in range(300)
    ]
    metadata = {"run_id": plan.run.run_id, "votes_version": 1, "geometry": ablation.model_dump() | {"crop": jobs.CROP}}
    metadata |= {"shard": {"name": "00.tar", "size": plan.tasks[0].shard.size}, "shard_sha256": "0" * 64}
    plan.run.store.publish(plan.run.url, plan.tasks[0].file_name, votes_table.encode(rows, A, metadata))
    report = verify(plan.run.url)
    assert (report.rows, report.problems) == (300, ())
    assert report.notices == ("unfinished: 1 of 1 shards are published",)
    for row in rows:
        row["max_certified_patch"] += 1
        row["max_margin_certified_patch"] -= 1
    (Path(plan.run.url) / plan.tasks[0].file_name).write_bytes(votes_table.encode(rows, A, metadata))
    monkeypatch.setattr("smoothcert.pipeline.verify.findings.MAX_REPORTED_ROWS", 300)
    assert len(verify(plan.run.url).problems) == 600


def test_a_limit_is_a_number_of_rows(tmp_path: Path) -> None:
    """With a limit the rows of each shard are known, and one less is a problem."""
    run = finish(tmp_path, **RUNS["limit"])
    write(file_of(run, 1), rows_of(file_of(run, 1))[:-1], renew=True)
    assert verify(str(run)).problems[0] == "votes/00001-01.parquet: has 2 rows, expected 3"


@pytest.mark.parametrize("any_run", ["row", "block", "limit"], indirect=True)
def test_a_file_of_another_run_is_found(run: Path, any_run: Path) -> None:
    """Put in under the right name; where it claims to be of this run by its geometry, or else by a replay."""
    name = file_of(run).name
    shutil.copy(any_run / "votes" / name, run / "votes" / name)
    assert f"votes/{name}: belongs to run {any_run.name}" in verify(str(run)).problems
    write(file_of(run), rows_of(file_of(run)), renew=True, run_id=run.name)
    problems = [
        problem for problem in verify(str(run), replay=100, seed=1).problems if not problem.startswith("_SUCCESS")
    ]
    assert problems
    assert all(problem.startswith(f"votes/{name} ") for problem in problems)


def test_an_unfinished_run_is_no_problem(run: Path) -> None:
    """What is there is checked; what is missing is a notice."""
    (run / "_SUCCESS").unlink()
    file_of(run, 0).unlink()
    report = verify(str(run))
    assert (report.problems, report.notices) == ((), ("unfinished: 1 of 2 shards are published",))
    assert (report.files, report.rows) == (1, 7)


def smoothcert(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_the_command(run: Path) -> None:
    """Problems, then notices, then the run with its figures, then a verdict; exit code 1 with problems."""
    code, text = smoothcert(run)
    sha256 = json.loads((run / "run.json").read_text())["checkpoint"]["sha256"]
    assert code == 0
    assert text.splitlines()[0] == f"small, run {run.name}, model weights.pt, SHA-256 {sha256[:12]}"
    assert text.splitlines()[-1] == "13 rows in 2 files: all right"
    (run / "_SUCCESS").unlink()
    shutil.copy(file_of(run), run / "votes" / "x.parquet")
    code, text = smoothcert(run)
    assert code == 1
    assert text.splitlines()[:2] == [
        "problem: votes/x.parquet: is of no shard of this run",
        "notice: unfinished: 2 of 2 shards are published",
    ]
    assert text.splitlines()[-1].startswith("13 rows in 2 files: UNFINISHED, 1 problem; run the job's command again")
    assert smoothcert(run / "votes")[0] == 2


def test_json_names_the_run_and_its_figures(run: Path, finished_partial: Path) -> None:
    """One object on stdout: which run, how complete, what is wrong, and the figures of the rows, counted anew."""
    success = json.loads((run / "_SUCCESS").read_text())
    shutil.copy(file_of(run), run / "votes" / "x.parquet")
    code, text = smoothcert(run, "--json")
    found, record = json.loads(text), json.loads((run / "run.json").read_text())
    assert code == 1
    assert found.pop("figures") == {
        "labels": sum(row["label"] is not None for file in success["files"] for row in rows_of(run / file)),
        **{name: success[name] for name in ("status", "clean_accuracy", "smoothed_accuracy", "certified")},
    }
    assert found == {
        "run_id": run.name,
        "job": "small",
        "checkpoint": record["checkpoint"]["url"],
        "checkpoint_sha256": record["checkpoint"]["sha256"],
        "complete": True,
        "partial": False,
        "limit": None,
        "shards": 2,
        "files": 2,
        "rows": 13,
        "problems": ["votes/x.parquet: is of no shard of this run"],
        "notices": [],
    }
    part = json.loads(smoothcert(finished_partial, "--json")[1])
    assert (part["complete"], part["partial"], part["limit"]) == (True, True, 9)


def test_a_finished_partial_run_is_all_right_and_partial(finished_partial: Path) -> None:
    """PARTIAL stands in the verdict: the figures are of the first images alone."""
    code, text = smoothcert(finished_partial)
    assert code == 0
    assert text.splitlines()[-1] == "9 rows in 2 files: all right, PARTIAL (only the first 9 images)"


@pytest.mark.parametrize(
    ("files", "success", "wrong", "code", "allowed"),
    [
        (2, True, False, 0, 0),
        (2, False, False, 1, 0),  # every file is there, and yet
        (1, False, False, 1, 0),
        (0, False, False, 1, 0),
        (1, True, False, 1, 0),  # what _SUCCESS names is lost: said as a problem, and allowed
        (1, False, True, 1, 1),
        (2, True, True, 1, 1),
    ],
)
def test_an_unfinished_run_is_never_all_right(
    run: Path, files: int, success: bool, wrong: bool, code: int, allowed: int
) -> None:
    """Exit code 1 without _SUCCESS or without a file; --allow-incomplete excuses that, and no problem."""
    if wrong:
        write(file_of(run), rows_of(file_of(run))[:-1], renew=False)
    for file in sorted((run / "votes").iterdir())[files:]:
        file.unlink()
    if not success:
        (run / "_SUCCESS").unlink()
    complete = success and files == 2
    for options, expected in (([], code), (["--allow-incomplete"], allowed)):
        found, text = smoothcert(run, *options)
        verdict = text.splitlines()[-1]
        assert found == expected
        assert ("UNFINISHED" in text) == ("UNFINISHED" in verdict) == (not complete)
        assert ("all right" in verdict) == (complete and not wrong)
        assert smoothcert(run, "--json", *options)[0] == expected
        assert json.loads(smoothcert(run, "--json", *options)[1])["complete"] is complete


def test_an_unfinished_run_is_replayed(run: Path) -> None:
    """What is there can be voted on again, all or nothing of it; it stays unfinished."""
    (run / "_SUCCESS").unlink()
    file_of(run, 1).unlink()
    code, text = smoothcert(run, "--replay", 100, "--seed", 1)
    assert (code, "replayed 6 images" in text, "UNFINISHED" in text) == (1, True, True)
    file_of(run).unlink()
    code, text = smoothcert(run, "--replay", 100, "--seed", 1, "--allow-incomplete")
    assert (code, "replayed 0 images" in text, "UNFINISHED" in text) == (0, True, True)


@pytest.mark.parametrize("any_run", ["block"], indirect=True)
def test_without_labels_an_accuracy_is_a_dash(any_run: Path) -> None:
    """A job without labels has no accuracy: a dash, and null."""
    text = smoothcert(any_run)[1]
    assert [line.split()[-3] for line in text.splitlines() if " accuracy " in line] == ["-", "-"]
    figures = json.loads(smoothcert(any_run, "--json")[1])["figures"]
    assert (figures["labels"], figures["clean_accuracy"], figures["smoothed_accuracy"]) == (None, None, None)
    assert all(entry["exact"] is not None for entry in figures["certified"])  # shares of all images


def test_the_check_tells_how_far_it_is(run: Path) -> None:
    """Files, then images to replay: it never goes back, and ends at the whole."""
    steps: list[tuple[str, int, int]] = []
    verify(str(run), replay=5, seed=1, hear=lambda *step: steps.append(step))
    for what, total in (("files", 2), ("images replayed", 5)):
        done = [step[1] for step in steps if step[0] == what]
        assert done == sorted(done)
        assert (what, total, total) in steps


def test_it_is_independent() -> None:
    """It imports nothing that makes what it checks, and no torch unless it replays."""
    allowed = {
        "smoothcert.manifests.errors",
        "smoothcert.manifests.job",
        "smoothcert.workers.storage.store",
        "smoothcert.pipeline.verify.replay",
        "numpy",
        "pyarrow",
    }
    tree = ast.parse((HOUSE / "pipeline" / "verify.py").read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {module for module in modules if module.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign <= allowed | {"pyarrow.parquet", "numpy.typing"}


def test_it_loads_no_torch(finished: Path) -> None:
    """The check of a run is a matter of Parquet."""
    heavy = "{'torch', 'ray', 'timm'} & set(sys.modules)"
    script = f"import sys, smoothcert; assert not smoothcert.verify({str(finished)!r}).problems; "
    result = subprocess.run(
        [sys.executable, "-c", f"{script} sys.exit(str({heavy}) if {heavy} else 0)"], cwd=HOUSE, check=False
    )
    assert result.returncode == 0
