"""`smoothcert status`: how far a run has come, from its storage alone and from any machine."""

import json
import time
from collections import Counter
from datetime import UTC, datetime

from rich.table import Table

from pipeline.plan import Run
from pipeline.results import read_published

_RECENT = 20  # shards from whose publication the rate is taken


def status_table(run: Run) -> Table:
    """The state of a run; reads the listing, and the column `status` of what is published."""
    status: Counter[str] = Counter()
    for file in read_published(run, ["status"]):
        status.update(file.rows["status"].to_pylist())
    missing, total = len(run.missing()), len(run.tasks)
    errors = {name: count for name, count in status.items() if name != "ok"}
    table = Table(title=run.record["name"], title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("run id", run.run_id + (" PARTIAL" if run.partial else ""))
    table.add_row("state", "complete" if not missing and run.success() else "incomplete")
    table.add_row("shards", f"{total - missing:,} of {total:,}")
    table.add_row("images", f"{status.total():,}")
    table.add_row("errors", ", ".join(f"{count:,} {name}" for name, count in sorted(errors.items())) or "0")
    for title, text in [*_times(run, missing), *_last_driver(run)]:
        table.add_row(title, text)
    return table


def _last_driver(run: Run) -> list[tuple[str, str]]:
    """What the driver that ended last says of itself (diary.py)."""
    diaries = sorted(run.store.files(f"{run.url}/drivers"), key=lambda entry: entry.modified)
    if not diaries:
        return []
    *shards, driver = map(json.loads, run.store.read(diaries[-1].url).splitlines())
    outcomes = Counter(entry["outcome"] for entry in shards)
    rows = [
        ("last driver", f"on {driver['node']}: " + ", ".join(f"{n} {what}" for what, n in sorted(outcomes.items())))
    ]
    return rows + [("failed", entry["reason"]) for entry in shards if entry["outcome"] == "failed"]


def _times(run: Run, missing: int) -> list[tuple[str, str]]:
    """When shards were published, and how long the others take at the rate of the last ones."""
    times = sorted(entry.modified for entry in run.store.files(f"{run.url}/votes"))
    if not times:
        return []
    ago = max(0.0, time.time() - times[-1])
    rows = [("last shard", f"{datetime.fromtimestamp(times[-1], UTC):%Y-%m-%d %H:%M:%S} UTC, {_span(ago)} ago")]
    recent = times[-_RECENT:]
    if missing and recent[-1] > recent[0]:
        each_s = (recent[-1] - recent[0]) / (len(recent) - 1)
        rows.append(("a shard takes", _span(each_s)))
        rows.append(("left, at that rate", _span(missing * each_s)))
    return rows


def _span(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds:.0f} s" if minutes else f"{seconds:.1f} s"
