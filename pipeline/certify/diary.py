"""What a driver did: as Ray metrics while it works, as JSON lines in RUN/drivers/ at the end.

    smoothcert_images_total             images whose shard is published
    smoothcert_shards_total{outcome}    published, adopted, failed, requeued, found
    smoothcert_images_per_second        of this driver, since it began
    smoothcert_decode_seconds_total     how long models waited for decoded images

Ray serves these metrics where it serves its own (`ray metrics`). Not covered: what the user sees (progress.py).
"""

import io
import os
import platform
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from smoothcert.pipeline.certify.outcome import Work
from smoothcert.pipeline.fleet.events import Event, Failure, FoundPublished, Requeued
from smoothcert.pipeline.overview.status import FailedShard
from smoothcert.workers.runs.layout import DRIVERS
from smoothcert.workers.runs.records import AttemptRecord, DriverRecord
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import ShardReport

_MIN_SECONDS = 1e-9  # Ray refuses to add nothing to a counter


class Diary:
    """Keeps the events of one driver's work.

    Args:
        run: the run that the driver works on.
    """

    def __init__(self, run: Run) -> None:
        from ray.util import metrics  # a finished run does not need ray

        self._run, self._began, self._start = run, datetime.now(UTC), time.monotonic()
        self.rows = 0  # whose votes were computed
        self._computed, self._adopted = 0, Counter[str]()
        self._turn_s = self._waited_s = 0.0
        self.failures: list[FailedShard] = []
        self._lines = io.BytesIO()  # lines take a fifth of the memory of records
        self._images = metrics.Counter("smoothcert_images_total", "Images whose shard is published.")
        self._shards = metrics.Counter(
            "smoothcert_shards_total", "Shards by what became of them.", tag_keys=("outcome",)
        )
        self._decode = metrics.Counter(
            "smoothcert_decode_seconds_total", "Seconds that models waited for decoded images."
        )
        self._rate = metrics.Gauge("smoothcert_images_per_second", "Images a second of this driver, since it began.")

    @property
    def images_per_second(self) -> float | None:
        return self.rows / (time.monotonic() - self._start) if self.rows else None

    def write(self, event: Event) -> None:
        """Note an event that ends an attempt at a shard; leave out the others."""
        match event:
            case ShardReport():
                self._count(event)
                self._add(_outcome_of(event), event, **_figures_of(event))
            case FoundPublished():
                self._add("found", event)
            case Requeued():
                self._add("requeued", event, reason=event.reason)
            case Failure():
                self.failures.append(FailedShard(event.task.shard.name, event.reason))
                self._add("failed", event, reason=event.reason)

    def work(self) -> Work:
        """What was done for the run so far."""
        return Work(
            computed=self._computed,
            adopted=dict(self._adopted),
            images=self.rows,
            seconds=self._seconds(),
            turn_seconds=self._turn_s,
            waited_seconds=self._waited_s,
        )

    def publish(self) -> None:
        """Publish the diary as a new file in RUN/drivers/: a line per attempt, then a line for the driver."""
        record = DriverRecord(
            node=platform.node(),
            began=self._began.isoformat(timespec="seconds"),
            seconds=self._seconds(),
            images=self.rows,
            images_per_second=self.images_per_second,
        )
        self._lines.write(record.encode() + b"\n")
        name = f"{DRIVERS}/{self._began:%Y%m%dT%H%M%SZ}-{platform.node()}-{os.getpid()}.jsonl"
        self._run.store.publish(self._run.url, name, self._lines.getvalue())

    def _count(self, report: ShardReport) -> None:
        if report.adopted_from is not None:
            self._adopted[report.adopted_from] += 1
            return
        self._computed += 1
        self._turn_s += report.turn_s
        self._waited_s += report.waited_s
        self.rows += report.rows
        self._images.inc(report.rows)
        self._decode.inc(max(report.waited_s, _MIN_SECONDS))
        self._rate.set(self.images_per_second or 0.0)

    def _add(self, outcome: str, event: ShardReport | FoundPublished | Requeued | Failure, **details: Any) -> None:
        self._shards.inc(tags={"outcome": outcome})
        record = AttemptRecord(shard=event.task.shard.name, outcome=outcome, at_s=self._seconds(), **details)
        self._lines.write(record.encode() + b"\n")

    def _seconds(self) -> float:
        return round(time.monotonic() - self._start, 3)


def _outcome_of(report: ShardReport) -> str:
    if not report.published:
        return "found"
    return "published" if report.adopted_from is None else "adopted"


def _figures_of(report: ShardReport) -> dict[str, Any]:
    adopted = {} if report.adopted_from is None else {"adopted_from": report.adopted_from}
    figures = {
        "statuses": report.statuses,
        "seconds": report.seconds,
        "turn_seconds": report.turn_s,
        "decode_wait_seconds": report.waited_s,
        "node": report.node,
    }
    return adopted | figures | _file_of(report)


def _file_of(report: ShardReport) -> dict[str, Any]:
    """The file that the shard ended in: with its hashes known, nobody has to read it whole to complete the run."""
    if report.hashes is None:
        return {}
    return {
        "file": report.task.file_name,
        "file_sha256": report.hashes.sha256,
        "footer_sha256": report.hashes.footer_sha256,
    }
