"""`smoothcert status`: how far a run has come. Reads storage alone, so it works on any machine.

Not covered: how it looks (tables.py).
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.overview.runs_list import run_as_json
from smoothcert.workers.runs.json_file import parse
from smoothcert.workers.runs.layout import DRIVERS, VOTES
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.records import AttemptRecord, DriverRecord
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
        RunError: a published file is damaged.
    """
    rows, published = Counter[str](), 0
    complete = run.complete()  # before the files are read: _SUCCESS is written after them
    for file in read_published(run, ["status"]):
        rows.update(file.rows["status"].to_pylist())
        published += 1
    times_s = sorted(entry.modified for entry in run.store.files(f"{run.url}/{VOTES}"))
    return Status(
        run=run,
        complete=complete,
        published=published,
        rows=dict(rows),
        last_published_s=times_s[-1] if times_s else None,
        seconds_per_shard=_seconds_per_shard(times_s[-_RECENT_SHARDS:]),
        last_driver=_last_driver(run),
    )


def _seconds_per_shard(times_s: list[float]) -> float | None:
    """The average distance of sorted times, or None if they do not differ."""
    if not times_s or times_s[-1] <= times_s[0]:
        return None
    return (times_s[-1] - times_s[0]) / (len(times_s) - 1)


def _last_driver(run: Run) -> LastDriver | None:
    diaries = sorted(run.store.files(f"{run.url}/{DRIVERS}"), key=lambda entry: entry.modified)
    if not diaries:
        return None
    url = diaries[-1].url
    try:
        *lines, last = run.store.read(url).splitlines() or [b""]
        attempts = [parse(AttemptRecord, line, url) for line in lines]
        driver = parse(DriverRecord, last, url)
    except RunError:  # a diary is a log: the figures of the run do not depend on it
        return LastDriver(url)
    outcomes = Counter(attempt.outcome for attempt in attempts)
    failures = tuple(
        FailedShard(attempt.shard, attempt.reason or "") for attempt in attempts if attempt.outcome == "failed"
    )
    return LastDriver(url, driver.node, tuple(sorted(outcomes.items())), failures)
