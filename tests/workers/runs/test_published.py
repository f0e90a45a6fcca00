"""Published files as they are read: damage is one line with its remedy, wherever it lies."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.pipeline.cli import app
from smoothcert.workers.runs import column_ranges, published
from smoothcert.workers.runs.file_hashes import hashes_of
from smoothcert.workers.runs.published import (
    adopted_from,
    parse_metadata,
    read_columns,
    read_figures,
    read_images,
    read_metadata,
    read_published,
    read_votes,
)
from smoothcert.workers.runs.run import Run, open_run
from tests.helpers.counted_requests import copy_to, counted, store_in_moto
from tests.helpers.diaries import write_diary_of
from tests.helpers.finished_runs import edit_json, file_of, rows_of, write


def test_no_damage_is_taken_for_votes(run: Path) -> None:
    """Of a run that is not finished, too: each page has its checksum. Damage is one line."""
    (run / "_SUCCESS").unlink()
    whole, columns, refused = file_of(run).read_bytes(), ["status", "votes", "margins"], 0
    before = next(read_published(open_run(str(run)), columns)).rows
    for position in range(0, len(whole), max(1, len(whole) // 300)):
        file_of(run).write_bytes(
            whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        )
        try:
            after = next(read_published(open_run(str(run)), columns)).rows
            assert after.equals(before), f"a flipped bit at {position} was read as other votes"
        except RunError as error:
            refused += 1
            assert "\n" not in str(error)
            assert "smoothcert repair" in str(error)
    assert refused > 20


def test_a_complete_run_is_read_as_it_was_completed(run: Path) -> None:
    """A file may be whole and right and still not the one whose hash _SUCCESS has."""
    rows = rows_of(file_of(run))
    rows[0]["votes"] = rows[1]["votes"]
    write(file_of(run), rows, renew=False)
    result = CliRunner().invoke(app, ["query", "--patch=2", str(run)])
    assert result.exit_code == 1
    assert "SHA-256 is not the one in _SUCCESS" in result.stderr
    with pytest.raises(RunError, match="SHA-256 is not the one in _SUCCESS"):
        list(read_figures(open_run(str(run)), ["status"]))


def test_files_come_in_the_order_of_the_shards(any_run: Path) -> None:
    """With name, hash, metadata and the requested columns of each; dictionaries are plain strings."""
    files = list(read_published(open_run(str(any_run)), ["key", "status"]))
    assert [file.name for file in files] == [f"votes/{path.name}" for path in sorted((any_run / "votes").iterdir())]
    for file in files:
        path = any_run / file.name
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert file.metadata.run_id == any_run.name
        assert file.rows.schema.types == [pa.string(), pa.string()]
        assert file.rows.to_pylist() == [{"key": row["key"], "status": row["status"]} for row in rows_of(path)]


_COUNT_THREADS = """
import os, sys, time
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run, open_run
run = open_run(sys.argv[1])
before = len(os.listdir("/proc/self/task"))
assert len(list(read_published(run, ["key", "status", "votes"]))) > 1
deadline = time.monotonic() + 5  # those that have ended are listed a moment longer
while len(os.listdir("/proc/self/task")) > before and time.monotonic() < deadline:
    time.sleep(0.01)
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_reading_leaves_no_thread_behind(run: Path) -> None:
    """A thread of Arrow that lets go of a Python object while the process ends aborts it."""
    done = subprocess.run([sys.executable, "-c", _COUNT_THREADS, str(run)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_files_that_are_missing_are_left_out(run: Path) -> None:
    """An unfinished run is read as far as it is."""
    (run / "_SUCCESS").unlink()
    file_of(run, 0).unlink()
    (file,) = read_published(open_run(str(run)), ["key"])
    assert file.name == "votes/00001-01.parquet"


def test_a_file_of_another_run_is_refused(run: Path) -> None:
    """Though it is whole and lies in the right place."""
    write(file_of(run), rows_of(file_of(run)), renew=True, run_id="0123456789abcdef")
    with pytest.raises(RunError, match=r"00000-00\.parquet is damaged \(it belongs to run 0123456789abcdef\); `smooth"):
        list(read_published(open_run(str(run)), ["key"]))


def test_other_columns_than_those_of_the_job_are_refused(run: Path) -> None:
    """As many votes as the job has ablations, and no other columns."""
    (run / "_SUCCESS").unlink()
    table = pq.read_table(file_of(run))
    pq.write_table(table.drop_columns(["label"]), file_of(run))
    with pytest.raises(RunError, match=r"damaged \(its columns are not those of the job in run\.json\)"):
        list(read_published(open_run(str(run)), ["key"]))


def test_parquet_of_another_program_is_not_a_file_of_votes(tmp_path: Path) -> None:
    """Nor is metadata of smoothcert without a run."""
    table = pa.table({"key": ["a"]})
    for metadata, says in (
        (None, "it has no metadata of smoothcert"),
        ({"other": "{}"}, "it has no metadata of smoothcert"),
        ({"smoothcert": "{}"}, "run_id is missing"),
        ({"smoothcert": "{"}, "Expecting property name"),
    ):
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
        with pytest.raises(RunError, match=rf"^a is damaged \({says}.*\); `smoothcert repair` the run"):
            parse_metadata((tmp_path / "a.parquet").read_bytes(), "a")
    with pytest.raises(RunError, match=r"^a is damaged"):
        parse_metadata(b"no Parquet", "a")


def test_images_are_the_rows_of_all_files(any_run: Path) -> None:
    """In the order of the shards; without a choice, all columns but the two large ones."""
    run, files = open_run(any_run), sorted((any_run / "votes").iterdir())
    rows = [row for file in files for row in rows_of(file)]
    assert read_images(run).to_pylist() == [
        {name: value for name, value in row.items() if name not in ("votes", "margins")} for row in rows
    ]
    assert read_images(run, ["margins", "key"]).to_pylist() == [
        {"margins": row["margins"], "key": row["key"]} for row in rows
    ]
    assert read_images(run, []).num_columns == 0


def test_votes_are_those_of_the_images(any_run: Path) -> None:
    """A row each, -1 where an image has none."""
    rows = [row for file in sorted((any_run / "votes").iterdir()) for row in rows_of(file)]
    votes = read_votes(open_run(any_run))
    (ablations,) = {len(row["votes"]) for row in rows if row["votes"]}
    assert votes.tolist() == [row["votes"] or [-1] * ablations for row in rows]
    assert votes.dtype == np.int32


def test_what_cannot_be_read_as_images_is_one_line(run: Path) -> None:
    """A column that does not exist, a damaged file, a run without files."""
    with pytest.raises(RequestError, match=r"^columns: a run has no 'vote'; it has key, shard, .*, votes, margins, "):
        read_images(open_run(run), ["key", "vote"])
    file_of(run).write_bytes(b"PAR1")
    with pytest.raises(RunError, match="SHA-256 is not the one in _SUCCESS"):
        read_votes(open_run(run))
    for file in (run / "votes").iterdir():
        file.unlink()
    with pytest.raises(RequestError, match="has no files of votes yet"):
        read_votes(open_run(run))


def _adopt(run: Path, number: int, source: str) -> None:
    """Let a file say that its rows come from another run."""
    adopted = {"run_id": source, "file": "votes/00000-a.parquet", "sha256": "0" * 64}
    write(file_of(run, number), rows_of(file_of(run, number)), renew=(run / "_SUCCESS").exists(), adopted_from=adopted)


@pytest.mark.parametrize("footer_bytes", [8, 100_000])
def test_where_rows_come_from(run: Path, footer_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """_SUCCESS says it of a complete run, each file of an unfinished one, however large its metadata is."""
    monkeypatch.setattr(published, "END_BYTES", footer_bytes)
    opened = open_run(str(run))
    assert adopted_from(opened, opened.success()) == {}
    edit_json(run / "_SUCCESS", lambda success: success.update(adopted_from={"b" * 16: 7}))
    assert adopted_from(opened, opened.success()) == {"b" * 16: 7}
    (run / "_SUCCESS").unlink()
    assert adopted_from(opened, None) == {}
    _adopt(run, 1, "a" * 16)
    assert adopted_from(opened, None) == {"a" * 16: 1}
    file_of(run).write_bytes(b"cut")
    with pytest.raises(RunError, match="is damaged"):
        adopted_from(opened, None)


COLUMNS = ["key", "status", "error", "label", "prediction", "max_certified_patch"]


@pytest.fixture
def only_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are read as large ones are."""
    monkeypatch.setattr(column_ranges, "WHOLE_BYTES", 0)
    monkeypatch.setattr(published, "WHOLE_BYTES", 0)
    monkeypatch.setattr(column_ranges, "END_BYTES", 64)


@pytest.mark.usefixtures("only_columns")
@pytest.mark.parametrize("known", [(), (0,), (0, 1)])
def test_figures_need_no_whole_files(run: Path, known: tuple[int, ...]) -> None:
    """Names, hashes, metadata and rows are the same, whether a diary knows all files, some or none."""
    (run / "_SUCCESS").unlink()
    write_diary_of(run, known)
    opened = open_run(str(run))
    whole, found = list(read_published(opened, COLUMNS)), list(read_figures(opened, COLUMNS))
    files = [opened.published_files()[task.file_name] for task in opened.tasks]
    assert [(file.name, file.sha256, file.metadata) for file in found] == [
        (file.name, file.sha256, file.metadata) for file in whole
    ]
    assert all(one.rows.equals(other.rows) for one, other in zip(found, whole, strict=True))
    assert [rows["key"].to_pylist() for rows in read_columns(opened, ["key"], files)] == [
        file.rows["key"].to_pylist() for file in whole
    ]
    assert [metadata.shard for metadata in read_metadata(opened)] == [file.metadata.shard for file in whole]


@pytest.mark.usefixtures("only_columns")
def test_a_file_that_was_made_again_is_hashed_again(run: Path) -> None:
    """The diary knows another one. It differs at least in its footer, which has its metadata."""
    (run / "_SUCCESS").unlink()
    write_diary_of(run, (0, 1))
    table = pq.read_table(file_of(run))
    table = table.replace_schema_metadata({**table.schema.metadata, b"other": b"1"})
    pq.write_table(table, file_of(run), write_page_checksum=True)
    first = next(read_figures(open_run(str(run)), COLUMNS))
    assert first.sha256 == hashlib.sha256(file_of(run).read_bytes()).hexdigest()


@pytest.mark.usefixtures("only_columns")
def test_damage_never_gets_a_hash_of_its_own(run: Path) -> None:
    """
    One wrong bit anywhere in a file that a diary knows: its rows are refused, or they are right and the hash is that
    of what was written. So whoever reads the file whole finds the damage.
    """
    (run / "_SUCCESS").unlink()
    write_diary_of(run, (0, 1))
    opened, whole = open_run(str(run)), file_of(run).read_bytes()
    before, refused, unseen = next(read_figures(opened, COLUMNS)), 0, 0
    for position in range(0, len(whole), max(1, len(whole) // 200)):
        damaged = whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        file_of(run).write_bytes(damaged)
        try:
            after = next(read_figures(opened, COLUMNS))
        except RunError:
            refused += 1
            continue
        assert after.rows.equals(before.rows)
        if hashes_of(damaged).footer_sha256 == hashes_of(whole).footer_sha256:
            unseen += 1
            assert after.sha256 == before.sha256
    assert refused > 10
    assert unseen > 10


@pytest.mark.usefixtures("only_columns")
def test_requests_for_figures(run: Path) -> None:
    """
    Two ranges for a file that a diary knows, and one for its metadata; one whole file otherwise. Listings and a
    diary are read once.
    """
    (run / "_SUCCESS").unlink()
    with store_in_moto() as store:
        copy_to(store, run, "s3://bucket/run")
        opened = Run("s3://bucket/run", open_run(str(run)).record, store)
        with counted(store) as unknown:
            list(read_figures(opened, COLUMNS))
        write_diary_of(run, (0, 1))
        copy_to(store, run / "drivers", "s3://bucket/run/drivers")
        with counted(store) as known:
            list(read_figures(opened, COLUMNS))
        with counted(store) as metadata:
            list(read_metadata(opened))
    assert (unknown.requests["GET"], unknown.requests["GET range"]) == (2, 0)
    assert known.requests["GET"] == 1  # the diary
    assert known.requests["GET range"] <= 2 * 3  # the end, the footer if it is longer than that, the columns
    assert (metadata.requests["GET range"], metadata.requests["GET"]) == (2, 0)
    assert known.requests["LIST"] == unknown.requests["LIST"] == 3  # is there a _SUCCESS, diaries, files
