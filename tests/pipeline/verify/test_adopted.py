"""A file that says wrongly where its rows come from is found; an origin that is gone is no fault."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.runs.votes_table import METADATA_KEY
from tests.helpers import jobs
from tests.helpers.damages import Change, Damages
from tests.helpers.finished_runs import COLUMN, edit_json, file_of, finish, finish_job, has, rows_of, write
from tests.helpers.tars import tar_of, write_tar

DAMAGES = Damages()
GONE = "0123456789abcdef"


@pytest.fixture(scope="session")
def adopting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three tars that has taken over two files, beside its origin and a run of other weights on the same
    tars; not to be changed.
    """
    folder = tmp_path_factory.mktemp("adopting")
    origin = finish(folder)
    write_tar(folder / "tars", tar_of(jobs.samples(20, 3)), "02.tar")
    job = folder / "job.yaml"
    run = finish_job(load_job(job))
    torch.save({name: value * 1.5 for name, value in torch.load(folder / "weights.pt").items()}, folder / "other.pt")
    other = finish_job(load_job(job, [f"model.checkpoint={folder}/other.pt"]))
    (folder / "roles.json").write_text(json.dumps({"origin": origin.name, "other": other.name}))
    assert [_metadata(file_of(run, number)).get("adopted_from", {}).get("run_id") for number in range(3)] == [
        origin.name,
        origin.name,
        None,
    ]
    return run


@pytest.fixture
def run(adopting: Path, tmp_path: Path) -> Path:
    """A copy of the run beside copies of the others, to be changed."""
    shutil.copytree(adopting.parent, tmp_path / "runs")
    shutil.copy(adopting.parents[1] / "roles.json", tmp_path)
    return tmp_path / "runs" / adopting.name


def sibling(run: Path, role: str) -> Path:
    """The run from which files were taken over (`origin`), or that with other weights (`other`)."""
    return run.parent / str(json.loads((run.parents[1] / "roles.json").read_text())[role])


def _metadata(file: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(pq.read_schema(file).metadata[METADATA_KEY])
    return metadata


def origin_of(file: Path) -> dict[str, str]:
    """What a file would say that is taken over from this one."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"run_id": file.parents[1].name, "file": f"votes/{file.name}", "sha256": sha256}


def lie(run: Path, **origin: str) -> None:
    """Let the first file name another origin; every hash fits."""
    file = file_of(run)
    write(file, rows_of(file), renew=True, adopted_from=_metadata(file)["adopted_from"] | origin)


def count_as(run: Path, counts: Any) -> None:
    edit_json(run / "_SUCCESS", lambda success: success.update(adopted_from=counts))


def test_what_was_taken_over_honestly_has_no_problem(run: Path) -> None:
    """Nor anything to be told about it."""
    report = verify(str(run))
    assert (report.problems, report.notices, report.rows, report.complete) == ((), (), 16, True)
    assert verify(str(run), replay=13, seed=1).problems == ()


def test_a_run_that_took_over_what_was_taken_over(run: Path) -> None:
    """The origin of the third run is the second; the first may go."""
    folder = run.parents[1]
    shutil.copytree(Path(_source_folder(run)), folder / "tars")
    shutil.copy(Path(_source_folder(run)).parent / "weights.pt", folder)
    shutil.rmtree(sibling(run, "origin"))
    third = finish_job(load_job(jobs.write_job(folder, ablation=COLUMN.model_dump()), ["images.version=3"]))
    assert _metadata(file_of(third))["adopted_from"] == origin_of(file_of(run))
    report = verify(str(third))
    assert (report.problems, report.notices) == ((), ())


def _source_folder(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["job"]["images"]["shards"])


def test_an_origin_that_was_made_again_is_a_notice(run: Path) -> None:
    """A repaired file has other seconds, and so other bytes; its rows are the same."""
    origin = file_of(sibling(run, "origin"))
    write(origin, rows_of(origin), renew=True, seconds=0.0)
    report = verify(str(run))
    assert report.problems == ()
    (notice,) = report.notices
    assert notice.startswith(f"1 file was taken over from run {origin.parents[1].name}, which has been made again")


@DAMAGES.add("^votes/00000-00.parquet metadata shard_sha256: is [0-9a-f]{64}, but that of .*00001-01.parquet differs$")
def an_origin_of_another_tar(run: Path) -> None:
    """Its columns differ, too, of course; that is no second line."""
    lie(run, **origin_of(file_of(sibling(run, "origin"), 1)))


@DAMAGES.add("^votes/00000-00.parquet metadata columns_sha256: is [0-9a-f]{64}, but that of .*00000-00.parquet differs")
def rows_that_changed(run: Path) -> None:
    """A margin, which contradicts nothing else."""
    rows = rows_of(file_of(run))
    rows[0]["clean_margin"] += 1.0
    write(file_of(run), rows, renew=True)


@DAMAGES.add("^votes/00000-00.parquet metadata votes_version: is 7, but that of .* differs$")
def another_version(run: Path) -> None:
    """Than that of the origin."""
    write(file_of(run), rows_of(file_of(run)), renew=True, votes_version=7)


@DAMAGES.add("^votes/00000-00.parquet metadata votes_version: is seven, expected 1$")
def a_version_of_another_type(run: Path) -> None:
    """Of a file whose origin cannot be asked."""
    shutil.rmtree(sibling(run, "origin"))
    write(file_of(run), rows_of(file_of(run)), renew=True, votes_version="seven")


@DAMAGES.add("^votes/00000-00.parquet metadata adopted_from: .*/votes/00000-00.parquet cannot be read as a file of")
def an_origin_that_is_no_file_of_votes(run: Path) -> None:
    """Its hash is as it should be."""
    origin = file_of(sibling(run, "origin"))
    origin.write_bytes(b"no Parquet")
    lie(run, sha256=origin_of(origin)["sha256"])


@DAMAGES.add(
    "^votes/00000-00.parquet metadata adopted_from.run_id: is .*, a run of other votes: it differs in model.che"
)
def an_origin_of_other_votes(run: Path) -> None:
    """The rows of other weights on the same tar."""
    other = file_of(sibling(run, "other"))
    write(file_of(run), rows_of(other), renew=True, adopted_from=origin_of(other))
    count_as(run, {sibling(run, "other").name: 1, sibling(run, "origin").name: 1})
    edit_json(run / "_SUCCESS", lambda success: success.update(_figures_of(run)))


def _figures_of(run: Path) -> dict[str, Any]:
    """What the rows of a run add up to, by what verify says of it."""
    figures = verify(str(run)).figures
    return {
        "clean_accuracy": figures.clean_accuracy,
        "smoothed_accuracy": figures.smoothed_accuracy,
        "certified": list(figures.certified),
    }


MALFORMED = [
    *(5, 0, False, True, "", "a run", [], {}, ["run_id"]),
    {"run_id": GONE, "file": "votes/a.parquet"},
    {"run_id": GONE, "file": "votes/a.parquet", "sha256": None},
    {"run_id": GONE, "file": "votes/a.parquet", "sha256": "F" * 64},
    {"run_id": "..", "file": "votes/a.parquet", "sha256": "f" * 64},
    {"run_id": f"../{GONE}", "file": "votes/a.parquet", "sha256": "f" * 64},
    {"run_id": f"{GONE}\n", "file": "votes/a.parquet", "sha256": "f" * 64},
    {"run_id": GONE, "file": "../secret", "sha256": "f" * 64},
    {"run_id": GONE, "file": "votes/../run.json", "sha256": "f" * 64},
    {"run_id": GONE, "file": "votes/../a.parquet", "sha256": "f" * 64},
    {"run_id": GONE, "file": "/etc/a.parquet", "sha256": "f" * 64},
    {"run_id": 5, "file": 5, "sha256": 5},
]


@pytest.mark.parametrize("origin", MALFORMED, ids=repr)
def test_a_malformed_origin_is_one_problem(run: Path, origin: Any) -> None:
    """It is not looked for, wherever it points."""
    write(file_of(run), rows_of(file_of(run)), renew=True, adopted_from=origin)
    (found,) = verify(str(run)).problems
    assert found.startswith("votes/00000-00.parquet metadata adopted_from: is ")
    assert found.endswith(", expected run_id, file and sha256")


@DAMAGES.add("^_SUCCESS adopted_from: is {'0123456789abcdef': 2}, the files give {'[0-9a-f]{16}': 2}$")
def counted_for_another_run(run: Path) -> None:
    """Which took part in nothing."""
    count_as(run, {GONE: 2})


@DAMAGES.add("^_SUCCESS adopted_from: is {'[0-9a-f]{16}': 3}, the files give {'[0-9a-f]{16}': 2}$")
def too_many_counted(run: Path) -> None:
    """All three, though one was computed."""
    count_as(run, {sibling(run, "origin").name: 3})


@DAMAGES.add("^_SUCCESS adopted_from: is {'[0-9a-f]{16}': True}, the files give {'[0-9a-f]{16}': 1}$")
def counted_by_a_truth_value(run: Path) -> None:
    """In Python True equals 1."""
    found = _metadata(file_of(run, 1))
    write(file_of(run, 1), rows_of(file_of(run, 1)), renew=True, adopted_from=None)
    assert found["adopted_from"]["run_id"] == sibling(run, "origin").name
    count_as(run, {sibling(run, "origin").name: True})


@DAMAGES.add("^_SUCCESS adopted_from: is {}, the files give {'[0-9a-f]{16}': 2}$")
def none_counted(run: Path) -> None:
    """As if all were computed."""
    count_as(run, {})


@DAMAGES.add("^_SUCCESS adopted_from: is {}, the files give {'[0-9a-f]{16}': 2}$")
def not_counted_at_all(run: Path) -> None:
    """A driver that knows no such key writes no such files."""
    edit_json(run / "_SUCCESS", lambda success: success.pop("adopted_from"))


@DAMAGES.add("^_SUCCESS adopted_from: is None, the files give {")
def counts_are_null(run: Path) -> None:
    """Of another type."""
    count_as(run, None)


@DAMAGES.add("^_SUCCESS adopted_from: is all, the files give {")
def counts_are_text(run: Path) -> None:
    """Of another type."""
    count_as(run, "all")


@DAMAGES.add("^_SUCCESS adopted_from: is {'[0-9a-f]{16}': 2}, the files give {'[0-9a-f]{16}': 1}$")
def a_file_that_hides_its_origin(run: Path) -> None:
    """As if it were computed; _SUCCESS remembers."""
    write(file_of(run), rows_of(file_of(run)), renew=True, adopted_from=None)


@pytest.mark.parametrize(("change", "expected", "problems"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_lie_is_found(run: Path, change: Change, expected: str, problems: int) -> None:
    """One cause is one line."""
    change(run)
    found = verify(str(run)).problems
    assert has(found, expected), found
    assert len(found) == problems, found


def remove(run: Path) -> Path:
    shutil.rmtree(sibling(run, "origin"))
    return run


def move(run: Path) -> Path:
    return run.rename(run.parents[1] / run.name)


def hide_files(run: Path) -> Path:
    shutil.rmtree(sibling(run, "origin") / "votes")
    return run


@pytest.mark.parametrize("change", [remove, move, hide_files])
def test_an_origin_that_is_gone_is_a_notice(run: Path, change: Callable[[Path], Path]) -> None:
    """Old runs are deleted, and runs are given to others."""
    origin = sibling(run, "origin").name
    report = verify(str(change(run)))
    assert report.problems == ()
    line = f"2 files were taken over from run {origin}, which is not here (or lacks them): not compared"
    assert report.notices == (line,)


def test_a_file_that_is_gone_is_counted_by_itself(run: Path) -> None:
    """The other one is compared."""
    origin = sibling(run, "origin")
    file_of(origin).unlink()
    report = verify(str(run))
    assert report.problems == ()
    (notice,) = report.notices
    assert notice.startswith(f"1 file was taken over from run {origin.name}, which is not here")
    rows = rows_of(file_of(origin, 0))  # now of the second shard
    rows[0]["clean_margin"] += 1.0
    write(file_of(origin, 0), rows, renew=True)
    assert has(verify(str(run)).problems, "^votes/00001-01.parquet metadata columns_sha256: is .* differs$")


@pytest.mark.parametrize("place", ["name", "dot", "slash", "path"])
def test_the_origin_is_found_from_any_folder(run: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the run is named."""
    rows_that_changed(run)
    monkeypatch.chdir(run if place == "dot" else run.parent)
    named: str | Path = {"name": run.name, "dot": ".", "slash": f"{run}/", "path": Path(run.name)}[place]
    assert has(verify(named).problems, "metadata columns_sha256: is .* differs$")


def test_runs_that_know_no_origin_are_right(run: Path) -> None:
    """Neither their files nor their _SUCCESS have the key."""
    origin = sibling(run, "origin")
    assert "adopted_from" not in _metadata(file_of(origin))
    edit_json(origin / "_SUCCESS", lambda success: success.pop("adopted_from"))
    report = verify(str(origin))
    assert (report.problems, report.notices) == ((), ())
    edit_json(origin / "_SUCCESS", lambda success: success.update(adopted_from={GONE: 1}))
    assert has(verify(str(origin)).problems, "^_SUCCESS adopted_from: is {'0123456789abcdef': 1}, the files give {}$")


def test_an_unfinished_run_may_have_taken_files_over(run: Path) -> None:
    """They are compared; there is nothing to count them against."""
    (run / "_SUCCESS").unlink()
    file_of(run, 2).unlink()
    assert verify(str(run)).problems == ()
    file = file_of(run)
    table = pq.read_table(file)
    metadata = _metadata(file)
    metadata["shard_sha256"] = "0" * 64
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)}), file)
    (found,) = verify(str(run)).problems
    assert "metadata shard_sha256: is 000" in found


def test_files_taken_over_across_versions_are_a_notice(run: Path) -> None:
    """Their origin says the same version, so it is no lie."""
    origin = sibling(run, "origin")
    for file in (file_of(origin), file_of(run)):
        changes = {"adopted_from": origin_of(file_of(origin))} if file.parents[1] == run else {}
        write(file, rows_of(file), renew=True, votes_version=0, **changes)
    edit_json(origin / "run.json", _made_by_version_0)
    report = verify(str(run))
    assert report.problems == ()
    (notice,) = report.notices
    assert notice == "1 file was taken over across versions: their votes_version is not the run's"


def _made_by_version_0(record: dict[str, Any]) -> None:
    record["votes_version"] = record["identity"]["votes_version"] = 0
