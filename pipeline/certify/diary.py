"""What a driver did: as Ray metrics while it works, as JSON lines beside run.json at the end.

    smoothcert_images_total             images whose shard is published
    smoothcert_shards_total{outcome}    published, failed, requeued, found
    smoothcert_images_per_second        of this driver, since it began
    smoothcert_decode_seconds_total     what models waited for decoded images

Ray serves metrics where its own are served (`ray metrics`). Not covered: what the user sees (progress.py).
"""

import io
import json
import os
import platform
import time
from datetime import UTC, datetime
from typing import Any

from smoothcert.pipeline.certify.events import Event, Failure, FoundPublished, Requeued
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import ShardReport


class Diary:
    """The events of one driver's work.

    Args:
        run: what it works on.
    """

    def __init__(self, run: Run) -> None:
        from ray.util.metrics import Counter, Gauge  # a finished run has no need of ray

        self._run, self._began, self._start = run, datetime.now(UTC), time.monotonic()
        self.rows = 0
        self.failures: list[str] = []
        self._lines = io.BytesIO()  # a fifth of what objects would take
        self._images = Counter("smoothcert_images_total", "Images whose shard is published.")
        self._shards = Counter("smoothcert_shards_total", "Shards by what became of them.", tag_keys=("outcome",))
        self._decode = Counter("smoothcert_decode_seconds_total", "Seconds that models waited for decoded images.")
        self._rate = Gauge("smoothcert_images_per_second", "Images a second of this driver, since it began.")

    @property
    def images_per_second(self) -> float | None:
        return self.rows / (time.monotonic() - self._start) if self.rows else None

    def write(self, event: Event) -> None:
        """Note an event, if it is the end of a shard's attempt."""
        match event:
            case ShardReport():
                self.rows += event.rows
                self._images.inc(event.rows)
                self._decode.inc(max(event.waited_s, 1e-9))  # Ray refuses to add nothing
                self._rate.set(self.images_per_second or 0.0)
                figures = {
                    "statuses": event.statuses,
                    "seconds": event.seconds,
                    "turn_seconds": event.turn_s,
                    "decode_wait_seconds": event.waited_s,
                }
                self._enter("published" if event.published else "found", event, figures | {"node": event.node})
            case FoundPublished():
                self._enter("found", event, {})
            case Requeued():
                self._enter("requeued", event, {"reason": event.reason})
            case Failure():
                self.failures.append(event.reason)
                self._enter("failed", event, {"reason": event.reason})

    def _enter(
        self, outcome: str, event: ShardReport | FoundPublished | Requeued | Failure, more: dict[str, Any]
    ) -> None:
        self._shards.inc(tags={"outcome": outcome})
        self._write({"shard": event.task.shard.name, "outcome": outcome, "at_s": self._seconds()} | more)

    def publish(self) -> None:
        """Put the diary into RUN/drivers/, under a name of its own: a line a shard, the last one of the driver."""
        self._write(
            {
                "node": platform.node(),
                "began": self._began.isoformat(timespec="seconds"),
                "seconds": self._seconds(),
                "images": self.rows,
                "images_per_second": self.images_per_second,
            }
        )
        name = f"drivers/{self._began:%Y%m%dT%H%M%SZ}-{platform.node()}-{os.getpid()}.jsonl"
        self._run.store.publish(self._run.url, name, self._lines.getvalue())

    def _write(self, entry: dict[str, Any]) -> None:
        self._lines.write(json.dumps(entry).encode() + b"\n")

    def _seconds(self) -> float:
        return round(time.monotonic() - self._start, 3)
