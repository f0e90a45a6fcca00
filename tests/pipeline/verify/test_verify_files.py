"""A changed file, figure or run.json is named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.verify.check import verify
from tests.helpers.finished_runs import edit_json, file_of, has, rows_of, write

FILES: list[tuple[Callable[[Path], Any], str, int]] = []


def damage(expected: str, problems: int = 1) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    """Add a change of a run's folder to the table, with the line that names it and the number of lines."""

    def add(change: Callable[[Path], Any]) -> Callable[[Path], Any]:
        FILES.append((change, expected, problems))
        return change

    return add


def edit_success(run: Path, **changes: Any) -> None:
    edit_json(run / "_SUCCESS", lambda success: success.update(changes))


@damage("^votes/00001-01.parquet: is missing, though _SUCCESS is there$")
def shard_removed(run: Path) -> None:
    """_SUCCESS stays behind."""
    file_of(run, 1).unlink()


@damage("^votes/00000-00.parquet: belongs to run 0123456789abcdef$")
def file_of_another_run(run: Path) -> None:
    """By its metadata."""
    write(file_of(run), rows_of(file_of(run)), renew=True, run_id="0123456789abcdef")


@damage("^votes/00000-00.parquet metadata shard: is .'01.tar', [0-9]+., expected .'00.tar'", problems=2)
def file_of_another_shard(run: Path) -> None:
    """Under the first shard's name, of a run that is not finished: metadata and the first row tell."""
    shutil.copy(file_of(run, 1), file_of(run))
    (run / "_SUCCESS").unlink()


@damage("^votes/x.parquet: is of no shard of this run$")
def file_too_many(run: Path) -> None:
    """Readers of votes/*.parquet would count it."""
    shutil.copy(file_of(run), run / "votes" / "x.parquet")


@damage("^votes/00000-00.parquet: cannot be read as a file of votes")
def file_truncated(run: Path) -> None:
    """One line, not one for each thing that cannot be seen."""
    file_of(run).write_bytes(file_of(run).read_bytes()[:-100])


@damage("^votes/00000-00.parquet: cannot be read as a file of votes")
def file_empty(run: Path) -> None:
    """The same with nothing left."""
    file_of(run).write_bytes(b"")


@damage("^votes/00000-00.parquet: cannot be read as a file of votes")
def file_without_metadata(run: Path) -> None:
    """As other tools write it."""
    pq.write_table(pq.read_table(file_of(run)).replace_schema_metadata(None), file_of(run))


@damage("^votes/00000-00.parquet: its SHA-256 is [0-9a-f]{64}, _SUCCESS says [0-9a-f]{64}$")
def file_written_anew(run: Path) -> None:
    """The same values in another encoding: the checksum covers values, the hash bytes."""
    pq.write_table(pq.read_table(file_of(run)), file_of(run), compression="none")


@damage("^votes/00000-00.parquet column label: is int64, expected int32$")
def column_retyped(run: Path) -> None:
    """Values are the same, the type is not."""
    found = pq.read_schema(file_of(run))
    schema = found.set(found.get_field_index("label"), pa.field("label", pa.int64()))
    write(file_of(run), rows_of(file_of(run)), renew=True, schema=schema)


@damage("^votes/00000-00.parquet column key: is string, expected string not null$")
def column_made_nullable(run: Path) -> None:
    """Values and type are the same, the promise is not."""
    found = pq.read_schema(file_of(run))
    write(file_of(run), rows_of(file_of(run)), renew=True, schema=found.set(0, pa.field("key", pa.string())))


@damage("^votes/00000-00.parquet columns: are .*'max_certified_patch'., expected .*'max_margin_certified_patch'.$")
def column_removed(run: Path) -> None:
    """The last one."""
    found = pq.read_schema(file_of(run))
    write(file_of(run), rows_of(file_of(run)), renew=True, schema=found.remove(len(found) - 1))


@damage("^votes/00000-00.parquet metadata geometry: is .*'stride': 2")
def geometry_of_metadata(run: Path) -> None:
    """Another stride than the job's."""
    geometry = {"crop": 16, "edges": "wrap", "kind": "column", "size": 4, "stride": 2}
    write(file_of(run), rows_of(file_of(run)), renew=True, geometry=geometry)


@damage("^votes/00000-00.parquet metadata votes_version: is 2, expected 1$")
def votes_version_of_metadata(run: Path) -> None:
    """Votes of another engine."""
    write(file_of(run), rows_of(file_of(run)), renew=True, votes_version=2)


@damage("^votes/00000-00.parquet: has 0 rows, expected at least one$")
def no_rows(run: Path) -> None:
    """A shard without images is not published."""
    write(file_of(run), [], renew=True)
    (run / "_SUCCESS").unlink()


@damage("^_SUCCESS rows: is 99, the rows give 13$")
def success_rows(run: Path) -> None:
    """More rows than there are."""
    edit_success(run, rows=99)


@damage("^_SUCCESS status: is .*, the rows give .*'label_error': 1")
def success_status(run: Path) -> None:
    """Errors passed over."""
    edit_success(run, status={"ok": 13})


@damage("^_SUCCESS clean_accuracy: is 2, the rows give 0")
def success_clean_accuracy(run: Path) -> None:
    """A figure of the summary."""
    edit_success(run, clean_accuracy=2)


@damage("^_SUCCESS smoothed_accuracy: is None, the rows give 0")
def success_smoothed_accuracy(run: Path) -> None:
    """The job has labels, so there is one."""
    edit_success(run, smoothed_accuracy=None)


@damage("^_SUCCESS certified: is .*'exact': 2.* the rows give .*'exact': 0")
def success_certified(run: Path) -> None:
    """A certified accuracy."""
    edit_json(run / "_SUCCESS", lambda success: success["certified"][1].update(exact=2))


@damage("^_SUCCESS certified: is patch, the rows give")
def success_certified_damaged(run: Path) -> None:
    """Not a list of patches."""
    edit_success(run, certified="patch")


@damage("^_SUCCESS files: names votes/y.parquet, of no shard$")
def success_files(run: Path) -> None:
    """The hash of a file that no shard has."""
    edit_json(run / "_SUCCESS", lambda success: success["files"].update({"votes/y.parquet": "00"}))


@damage("^_SUCCESS: is damaged")
def success_damaged(run: Path) -> None:
    """No JSON."""
    (run / "_SUCCESS").write_text('{"rows": 13')


@damage("^run.json run_id: is 0123456789abcdef, the identity gives ", problems=3)
def run_id(run: Path) -> None:
    """Contradicts the identity and both files."""
    edit_json(run / "run.json", lambda record: record.update(run_id="0123456789abcdef"))


@damage("^run.json identity.model.dtype: is left out, the other entries give bfloat16$")
def job_of_another_dtype(run: Path) -> None:
    """The identity has float32, by leaving it out."""
    edit_json(run / "run.json", lambda record: record["job"]["model"].update(dtype="bfloat16"))


@damage("^run.json identity.preprocess.resize: is None, the other entries give left out$", problems=2)
def job_of_another_resize(run: Path) -> None:
    """null in the identity is not the default, which is left out; a size_error has no reason then."""
    edit_json(run / "run.json", lambda record: record["job"]["preprocess"].update(resize=256))


@damage("^run.json identity.images.shards: is ", problems=2)
def size_of_a_shard(run: Path) -> None:
    """Contradicts the identity and the metadata of its file."""
    edit_json(run / "run.json", lambda record: record["shards"][0].update(size=10**6))


@damage("^run.json shards: their limits do not go with images.limit None, partial False")
def limit_of_a_shard(run: Path) -> None:
    """A run without limit."""
    edit_json(run / "run.json", lambda record: record["shards"][0].update(limit=6))


@damage("^run.json identity.model.checkpoint_sha256: is [0-9a-f]{64}, the other entries give 00$")
def checkpoint(run: Path) -> None:
    """Other weights than the identity's."""
    edit_json(run / "run.json", lambda record: record["checkpoint"].update(sha256="00"))


@damage("^run.json checkpoint.url: is /elsewhere, the job says ")
def url_of_the_checkpoint(run: Path) -> None:
    """Told twice, and not alike."""
    edit_json(run / "run.json", lambda record: record["checkpoint"].update(url="/elsewhere"))


@damage("^run.json name: is another, the job says ")
def name_of_the_run(run: Path) -> None:
    """`runs` and `status` show it."""
    edit_json(run / "run.json", lambda record: record.update(name="another"))


@damage("^votes/00000-00.parquet metadata shard_sha256: is None, expected 64 hex digits$")
def hash_of_the_tar(run: Path) -> None:
    """Without it nobody can tell whether a tar has changed."""
    write(file_of(run), rows_of(file_of(run)), renew=True, shard_sha256=None)


@pytest.mark.parametrize(("change", "expected", "problems"), FILES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_file_is_found(run: Path, change: Callable[[Path], Any], expected: str, problems: int) -> None:
    """Files, metadata, _SUCCESS and run.json; one cause is as few lines as it can be."""
    change(run)
    found = verify(str(run)).problems
    assert has(found, expected)
    assert len(found) == problems, found


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"run_id": "x", "identity": {}, "job": {}, "shards": []}'])
def test_a_damaged_run_json_is_a_wrong_request(run: Path, content: str) -> None:
    """Without run.json nothing can be said, in one line."""
    with pytest.raises(RequestError, match=r"holds no run\.json; name the folder of a run"):
        verify(str(run / "votes"))
    (run / "run.json").write_text(content)
    with pytest.raises(RequestError, match=r"run\.json is damaged .*; restore it$"):
        verify(str(run))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("ablation", {"size": 17}),
        ("ablation", {"stride": 0}),
        ("ablation", {"kind": "spiral"}),
        ("model", {"classes": None}),
        ("model", {"classes": 1}),
        ("preprocess", {"resize": "large"}),
        ("preprocess", {"resize": []}),
        ("images", {"limit": "few"}),
    ],
)
def test_an_impossible_job_is_a_wrong_request(run: Path, part: str, change: dict[str, Any]) -> None:
    """Nothing can be counted with it."""
    edit_json(run / "run.json", lambda record: record["job"][part].update(change))
    with pytest.raises(RequestError, match=r"run\.json is damaged"):
        verify(str(run))
