"""`smoothcert status`: how far a run has come. Reads storage alone, so it works on any machine.

It lists files and does not read them, so that it is quick in a run of a hundred thousand shards. What is in them is
known from _SUCCESS, or from the diaries of the drivers that ended. Only of files that these do not know, such as those
of a driver that still works, is the column `status` read. So damage goes unseen here.

Not covered: how it looks (tables.py); damage (pipeline/verify/).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from smoothcert.manifests.files import FileEntry
from smoothcert.pipeline.overview.runs_list import run_as_json
from smoothcert.workers.runs.diaries import StoredDiary, diaries_of, known_files
from smoothcert.workers.runs.published import read_columns
from smoothcert.workers.runs.run import Run

_RECENT_SHARDS = 20  # the rate is measured over their publication


class FailedShard(NamedTuple):
    """A shard that failed, or would fail: the name of its tar, and why, on one line that names it, too."""

    shard: str
    reason: str


@dataclass(frozen=True)
class LastDriver:
    """What the diary of the driver that ended last says.

    Attributes:
        url: of its diary.
        node: name of its machine; None if the diary cannot be read.
        outcomes: number of attempts at shards by what became of them.
        failures: the shards that failed.
    """

    url: str
    node: str | None = None
    outcomes: tuple[tuple[str, int], ...] = ()
    failures: tuple[FailedShard, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.url,
            "node": self.node,
            "outcomes": dict(self.outcomes),
            "failures": [failure._asdict() for failure in self.failures],
        }


@dataclass(frozen=True)
class Status:
    """How far a run has come.

    Attributes:
        run: the run.
        complete: whether _SUCCESS and all files are there.
        published: number of shards with a file of votes.
        rows: number of rows of each status.
        last_published_s: when the last file was published, in seconds since 1970; None without files.
        seconds_per_shard: between the last files; None if there are too few to tell.
        last_driver: None if no driver has ended.
    """

    run: Run
    complete: bool
    published: int
    rows: dict[str, int]
    last_published_s: float | None
    seconds_per_shard: float | None
    last_driver: LastDriver | None

    @property
    def missing(self) -> int:
        """Number of shards without a file of votes."""
        return len(self.run.tasks) - self.published

    @property
    def seconds_left(self) -> float | None:
        """How long the missing shards take at the rate of the last ones; None if that cannot be told."""
        return None if self.seconds_per_shard is None else self.missing * self.seconds_per_shard

    def as_json(self) -> dict[str, Any]:
        """What the table of `smoothcert status` says; times are ISO 8601 in UTC."""
        last_s = self.last_published_s
        return {
            **run_as_json(self.run, complete=self.complete, published=self.published),
            "ablation": self.run.job.ablation.model_dump(),
            "limit": self.run.job.images.limit if self.run.partial else None,
            "images": sum(self.rows.values()),
            "status": self.rows,
            "last_published": None
            if last_s is None
            else datetime.fromtimestamp(last_s, UTC).isoformat(timespec="seconds"),
            "seconds_per_shard": self.seconds_per_shard,
            "seconds_left": self.seconds_left,
            "last_driver": None if self.last_driver is None else self.last_driver.as_json(),
        }


def status_of(run: Run) -> Status:
    """Read what is published.

    Raises:
        RequestError: run.json is damaged.
        RunError: _SUCCESS is damaged, or a published file that had to be read.
    """
    success = run.success()  # before the files are listed: it is written after them
    published, diaries = run.published_files(), diaries_of(run)
    files = {task.file_name: published[task.file_name] for task in run.tasks if task.file_name in published}
    complete = success is not None and len(files) == len(run.tasks)
    times_s = sorted(entry.modified for entry in files.values())
    return Status(
        run=run,
        complete=complete,
        published=len(files),
        rows=dict(success.status) if complete and success and success.status else _rows_of(run, files, diaries),
        last_published_s=times_s[-1] if times_s else None,
        seconds_per_shard=_seconds_per_shard(times_s[-_RECENT_SHARDS:]),
        last_driver=_last_driver(diaries[-1]) if diaries else None,
    )


def _seconds_per_shard(times_s: list[float]) -> float | None:
    """The average distance of sorted times, or None if they do not differ."""
    if not times_s or times_s[-1] <= times_s[0]:
        return None
    return (times_s[-1] - times_s[0]) / (len(times_s) - 1)


def _rows_of(run: Run, files: Mapping[str, FileEntry], diaries: Sequence[StoredDiary]) -> dict[str, int]:
    """Number of rows of each status in these files, which go by their names."""
    rows, known = Counter[str](), known_files(diaries)
    for name in files.keys() & known.keys():
        rows.update(known[name].statuses)
    unknown = [entry for name, entry in files.items() if name not in known]
    for table in read_columns(run, ["status"], unknown):
        rows.update(table["status"].to_pylist())
    return dict(rows)


def _last_driver(diary: StoredDiary) -> LastDriver:
    failures = tuple(FailedShard(attempt.shard, attempt.reason or "") for attempt in diary.failed)
    return LastDriver(diary.url, diary.node, tuple(sorted(diary.outcomes.items())), failures)
