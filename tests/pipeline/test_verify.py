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

from manifests.job import Ablation, load_job
from pipeline.cli import app
from pipeline.plan import begin, make_plan
from pipeline.verify import verify
from tests.helpers import jobs
from tests.helpers.finished_runs import (
    RUNS,
    file_of,
    finish,
    rows_of,
    write,
)
from tests.helpers.tars import tar_of, write_tar
from workers import votes_table
from workers.certificates import certify
from workers.geometry import Geometry

HOUSE = Path(__file__).resolve().parents[2]


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
    monkeypatch.setattr("pipeline.verify._TOLD", 300)
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
    """Problems, then notices, then a verdict; exit code 1 with problems; one JSON object with --json."""
    assert smoothcert(run) == (0, "13 rows in 2 files: all right\n")
    (run / "_SUCCESS").unlink()
    shutil.copy(file_of(run), run / "votes" / "x.parquet")
    code, text = smoothcert(run)
    assert (code, text.splitlines()) == (
        1,
        [
            "votes/x.parquet: is of no shard of this run",
            "notice: unfinished: 2 of 2 shards are published",
            "13 rows in 2 files: 1 problem",
        ],
    )
    code, text = smoothcert(run, "--json")
    assert code == 1
    assert json.loads(text) == {
        "run_id": run.name,
        "files": 2,
        "rows": 13,
        "problems": ["votes/x.parquet: is of no shard of this run"],
        "notices": ["unfinished: 2 of 2 shards are published"],
    }
    assert smoothcert(run / "votes")[0] == 2


def test_it_is_independent() -> None:
    """It imports nothing that makes what it checks, and no torch unless it replays."""
    allowed = {"manifests.errors", "manifests.job", "workers.storage", "pipeline.replay", "numpy", "pyarrow"}
    tree = ast.parse((HOUSE / "pipeline" / "verify.py").read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {module for module in modules if module.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign <= allowed | {"pyarrow.parquet", "numpy.typing"}


def test_it_loads_no_torch(finished: Path) -> None:
    """The check of a run is a matter of Parquet."""
    heavy = "{'torch', 'ray', 'timm'} & set(sys.modules)"
    script = f"import sys; from pipeline.verify import verify; assert not verify({str(finished)!r}).problems; "
    result = subprocess.run(
        [sys.executable, "-c", f"{script} sys.exit(str({heavy}) if {heavy} else 0)"], cwd=HOUSE, check=False
    )
    assert result.returncode == 0
