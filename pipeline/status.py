"""`smoothcert status` and `runs`: how far a run, or all of an output, has come; from storage alone, on any machine."""

import json
import time
from collections import Counter
from datetime import UTC, datetime

from rich import box
from rich.table import Column, Table

from manifests.errors import RequestError, SmoothcertError
from manifests.job import Storage
from pipeline.plan import Run, find_run
from pipeline.results import read_published
from workers.storage import AnyStore

_RECENT = 20  # shards from whose publication the rate is taken


def runs_table(output: str, storage: Storage = Storage()) -> tuple[Table, list[str]]:  # noqa: B008  frozen
    """The runs of an output, and a line for each that is damaged.

    Raises:
        RequestError: there are none.
    """
    store = AnyStore(storage)
    folding = [Column(title, overflow="fold") for title in ("job", "model", "ablation", "shards", "rows", "state")]
    table, damaged = Table(Column("run", no_wrap=True), *folding, box=box.SIMPLE_HEAD, pad_edge=False), list[str]()
    for url in store.folders(output):
        try:
            if (run := find_run(url, store)) is not None:
                table.add_row(*_in_short(run))
        except SmoothcertError as error:
            damaged.append(str(error))
    if not table.row_count and not damaged:
        raise RequestError(f"{output}: no such folder, or no run in it; name the `output` of a job")
    return table, damaged


def _in_short(run: Run) -> list[str]:
    ablation, success = run.job.ablation, run.success()
    done = len(run.tasks) - len(run.missing())
    state = "complete" if success and done == len(run.tasks) else "incomplete"
    return [
        run.run_id,
        run.name,
        run.job.model.architecture,
        f"{ablation.kind} {ablation.size} stride {ablation.stride}",
        f"{done}/{len(run.tasks)}",
        f"{success['rows']:,}" if success else "",
        f"{state} PARTIAL" if run.partial else state,
    ]


def status_table(run: Run) -> Table:
    """The state of a run; reads what is published."""
    status, done, total = Counter[str](), 0, len(run.tasks)
    for file in read_published(run, ["status"]):
        status.update(file.rows["status"].to_pylist())
        done += 1
    missing = total - done
    errors = {name: count for name, count in status.items() if name != "ok"}
    table = Table(title=run.name, title_justify="left", show_header=False)
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
    try:
        *shards, driver = map(json.loads, run.store.read(diaries[-1].url).splitlines())
        outcomes = Counter(entry["outcome"] for entry in shards)
        rows = [
            ("last driver", f"on {driver['node']}: " + ", ".join(f"{n} {what}" for what, n in sorted(outcomes.items())))
        ]
        return rows + [("failed", entry["reason"]) for entry in shards if entry["outcome"] == "failed"]
    except (ValueError, KeyError, TypeError):
        return [("last driver", f"its diary cannot be read: {diaries[-1].url}")]


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
