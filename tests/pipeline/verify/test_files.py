"""A changed file of votes is named."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.pipeline.verify.check import verify
from tests.helpers.damages import Change, Damages
from tests.helpers.finished_runs import RUNS, file_of, finish, has, rows_of, write

DAMAGES = Damages()


@DAMAGES.add("^votes/00001-01.parquet: is missing, though _SUCCESS is there$")
def shard_removed(run: Path) -> None:
    """_SUCCESS stays behind."""
    file_of(run, 1).unlink()


@DAMAGES.add("^votes/00000-00.parquet: belongs to run 0123456789abcdef$")
def file_of_another_run(run: Path) -> None:
    """By its metadata."""
    write(file_of(run), rows_of(file_of(run)), renew=True, run_id="0123456789abcdef")


@DAMAGES.add("^votes/00000-00.parquet metadata shard: is .'01.tar', [0-9]+., expected .'00.tar'", problems=2)
def file_of_another_shard(run: Path) -> None:
    """Under the first shard's name, of a run that is not finished: metadata and the first row tell."""
    shutil.copy(file_of(run, 1), file_of(run))
    (run / "_SUCCESS").unlink()


@DAMAGES.add("^votes/x.parquet: belongs to no shard of this run$")
def file_too_many(run: Path) -> None:
    """Readers of votes/*.parquet would count it."""
    shutil.copy(file_of(run), run / "votes" / "x.parquet")


@DAMAGES.add("^votes/00000-00.parquet: cannot be read as a file of votes")
def file_truncated(run: Path) -> None:
    """One line, not one for each thing that cannot be seen."""
    file_of(run).write_bytes(file_of(run).read_bytes()[:-100])


@DAMAGES.add("^votes/00000-00.parquet: cannot be read as a file of votes")
def file_empty(run: Path) -> None:
    """The same with nothing left."""
    file_of(run).write_bytes(b"")


@DAMAGES.add("^votes/00000-00.parquet: cannot be read as a file of votes")
def file_without_metadata(run: Path) -> None:
    """As other tools write it."""
    pq.write_table(pq.read_table(file_of(run)).replace_schema_metadata(None), file_of(run))


@DAMAGES.add("^votes/00000-00.parquet: its SHA-256 is [0-9a-f]{64}, _SUCCESS says [0-9a-f]{64}$")
def file_written_anew(run: Path) -> None:
    """The same values in another encoding: the checksum covers values, the hash bytes."""
    pq.write_table(pq.read_table(file_of(run)), file_of(run), compression="none")


@DAMAGES.add("^votes/00000-00.parquet column label: is int64, expected int32$")
def column_retyped(run: Path) -> None:
    """Values are the same, the type is not."""
    found = pq.read_schema(file_of(run))
    schema = found.set(found.get_field_index("label"), pa.field("label", pa.int64()))
    write(file_of(run), rows_of(file_of(run)), renew=True, schema=schema)


@DAMAGES.add("^votes/00000-00.parquet column key: is string, expected string not null$")
def column_made_nullable(run: Path) -> None:
    """Values and type are the same, the promise is not."""
    found = pq.read_schema(file_of(run))
    write(file_of(run), rows_of(file_of(run)), renew=True, schema=found.set(0, pa.field("key", pa.string())))


@DAMAGES.add("^votes/00000-00.parquet columns: are .*'max_certified_patch'., expected .*'max_margin_certified_patch'.$")
def column_removed(run: Path) -> None:
    """The last one."""
    found = pq.read_schema(file_of(run))
    write(file_of(run), rows_of(file_of(run)), renew=True, schema=found.remove(len(found) - 1))


@DAMAGES.add("^votes/00000-00.parquet metadata geometry: is .*'stride': 2")
def geometry_of_metadata(run: Path) -> None:
    """Another stride than the job's."""
    geometry = {"crop": 16, "edges": "wrap", "kind": "column", "size": 4, "stride": 2}
    write(file_of(run), rows_of(file_of(run)), renew=True, geometry=geometry)


@DAMAGES.add(
    "metadata geometry: is {'crop': 16, 'edges': 'wrap', 'kind': 'column', 'size': 4, 'stride': 2}, "
    "expected {'crop': 16, 'edges': 'wrap', 'kind': 'column', 'size': 4, 'stride': 3}$"
)
def geometry_in_another_order(run: Path) -> None:
    """Both are printed with their keys in the same order."""
    geometry = {"stride": 2, "size": 4, "kind": "column", "edges": "wrap", "crop": 16}
    write(file_of(run), rows_of(file_of(run)), renew=True, geometry=geometry)


@DAMAGES.add("^votes/00000-00.parquet metadata votes_version: is 2, expected 1$")
def votes_version_of_metadata(run: Path) -> None:
    """Votes of another engine."""
    write(file_of(run), rows_of(file_of(run)), renew=True, votes_version=2)


@DAMAGES.add("^votes/00000-00.parquet: has 0 rows, expected at least one$")
def no_rows(run: Path) -> None:
    """A shard without images is not published."""
    write(file_of(run), [], renew=True)
    (run / "_SUCCESS").unlink()


@DAMAGES.add("^votes/00000-00.parquet metadata shard_sha256: is None, expected 64 hex digits$")
def hash_of_the_tar(run: Path) -> None:
    """Without it nobody can tell whether a tar has changed."""
    write(file_of(run), rows_of(file_of(run)), renew=True, shard_sha256=None)


@pytest.mark.parametrize(("change", "expected", "problems"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_file_is_found(run: Path, change: Change, expected: str, problems: int) -> None:
    """One cause is as few lines as it can be."""
    change(run)
    found = verify(str(run)).problems
    assert has(found, expected)
    assert len(found) == problems, found


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


def test_names_of_columns_that_are_no_text_are_a_finding(run: Path) -> None:
    """Arrow raises a UnicodeDecodeError for such a footer; the other files are still checked."""
    file = file_of(run)
    damaged = file.read_bytes().replace(b"runner_up_count", b"runner_up_c\xffunt")
    file.write_bytes(damaged)
    report = verify(str(run))
    assert has(report.problems, rf"{file.name}: cannot be read as a file of votes \(")
    assert report.files == 2


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("recovery_certified", pa.int32(), "column recovery_certified: is int32, expected bool"),
        ("votes", pa.list_(pa.uint16(), 9), r"column votes: is fixed_size_list.*\[9\], expected fixed_size.*\[10\]"),
    ],
)
def test_columns_of_masks_have_their_types(masks_run: Path, name: str, kind: pa.DataType, expected: str) -> None:
    """As many votes as the masks and their pairs, and truth values."""
    found = pq.read_schema(file_of(masks_run))
    rows = rows_of(file_of(masks_run))
    for row in rows:
        row[name] = row[name][:9] if name == "votes" else int(row[name])
    schema = found.set(found.get_field_index(name), pa.field(name, kind))
    write(file_of(masks_run), rows, renew=True, schema=schema)
    assert has(verify(str(masks_run)).problems, f"^votes/00000-00.parquet {expected}")


def test_a_column_of_masks_may_not_lack(masks_run: Path) -> None:
    """The last one, which says what detection is worth."""
    found = pq.read_schema(file_of(masks_run))
    schema = found.remove(found.get_field_index("detection_certified"))
    write(file_of(masks_run), rows_of(file_of(masks_run)), renew=True, schema=schema)
    assert has(verify(str(masks_run)).problems, "^votes/00000-00.parquet columns: are ")


def test_the_geometry_of_masks_is_that_of_the_job(masks_run: Path) -> None:
    """All its keys, and the crop."""
    geometry = {"kind": "mask", "threat": 5, "per_axis": 2, "fill": "mean", "threat_patches": 1, "early_exit": True}
    write(file_of(masks_run), rows_of(file_of(masks_run)), renew=True, geometry=geometry | {"crop": 16})
    expected = "^votes/00000-00.parquet metadata geometry: is .*'fill': 'mean'.*, expected .*'fill': 'black'"
    assert has(verify(str(masks_run)).problems, expected)
