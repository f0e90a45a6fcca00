"""What the drivers of a run left behind."""

import json
import os
from pathlib import Path

import pytest

from smoothcert.manifests.job import Storage
from smoothcert.workers.runs.diaries import KnownFile, StoredDiary, diaries_of, known_files
from smoothcert.workers.runs.file_hashes import FileHashes
from smoothcert.workers.runs.run import Run
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.records import run_record


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path), run_record(), AnyStore(Storage()))


def write(run: Run, name: str, *lines: object, modified_s: float) -> str:
    path = Path(run.url, "drivers", name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    os.utime(path, (modified_s, modified_s))
    return str(path)


def attempt(file: str, sha256: str, **more: object) -> dict[str, object]:
    known = {"file": file, "file_sha256": sha256, "footer_sha256": "f"}
    return {"shard": "a.tar", "outcome": "published", "statuses": {"ok": 2}, **known, **more}


def test_a_run_without_diaries(run: Run) -> None:
    assert diaries_of(run) == []


def test_diaries_come_in_the_order_in_which_they_ended(run: Run) -> None:
    """Of a file that was made again, the later one counts; other files are known from both."""
    failed = {"shard": "c.tar", "outcome": "failed", "reason": "why"}
    later = write(run, "a", attempt("votes/a", "2"), failed, {"node": "two"}, modified_s=2)
    first = write(run, "b", attempt("votes/a", "1"), attempt("votes/b", "1"), {"node": "one"}, modified_s=1)
    diaries = diaries_of(run)
    assert [(diary.url, diary.node, diary.outcomes) for diary in diaries] == [
        (first, "one", {"published": 2}),
        (later, "two", {"published": 1, "failed": 1}),
    ]
    assert [each.reason for each in diaries[1].failed] == ["why"]
    assert known_files(diaries) == {
        "votes/a": KnownFile(FileHashes("2", "f"), {"ok": 2}),
        "votes/b": KnownFile(FileHashes("1", "f"), {"ok": 2}),
    }


@pytest.mark.parametrize("missing", ["file", "file_sha256", "footer_sha256"])
def test_a_diary_of_an_older_version_knows_no_files(run: Run, missing: str) -> None:
    """Nor does one in which a key was deleted."""
    line = attempt("votes/a", "1")
    del line[missing]
    write(run, "a", line, {"node": "one"}, modified_s=1)
    (diary,) = diaries_of(run)
    assert (diary.node, diary.outcomes, diary.files) == ("one", {"published": 1}, {})


@pytest.mark.parametrize("lines", [(), ("text",), (attempt("votes/a", "1"),), ({"shard": "a"}, {"node": "one"})])
def test_a_damaged_diary_says_nothing(run: Run, lines: tuple[object, ...]) -> None:
    """It is no error: a diary is a log."""
    url = write(run, "a", *lines, modified_s=1)
    assert diaries_of(run) == [StoredDiary(url)]
