"""`smoothcert status` and `runs`: how far a run, or all of an output, has come; from storage alone, on any machine."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Column, Table

from smoothcert.manifests.errors import RequestError, SmoothcertError
from smoothcert.manifests.job import Ablation, Storage
from smoothcert.manifests.names import listed
from smoothcert.manifests.shards import instead_of
from smoothcert.pipeline.console.looks import checkpoint, facts, fits, percent, plain, say, short_hash, show, span
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run, find_run
from smoothcert.workers.storage.store import AnyStore

_RECENT = 20  # shards from whose publication the rate is taken


class Listed(NamedTuple):
    """A run in short, as text. Accuracies are those of _SUCCESS: a dash without it, or without labels."""

    run: str
    begun: str
    job: str
    architecture: str
    checkpoint: str
    sha256: str
    ablation: str
    limit: str
    shards: str
    images: str
    clean: str
    smoothed: str
    state: str


def runs_of(output: str, storage: Storage = Storage()) -> tuple[list[Listed], list[str]]:  # noqa: B008  frozen
    """The runs of an output, the oldest first, and a line for each that is damaged.

    Raises:
        RequestError: there are none.
    """
    store = AnyStore(storage)
    found, damaged = list[Listed](), list[str]()
    for url in store.folders(output):
        try:
            if (run := find_run(url, store)) is not None:
                found.append(_in_short(run))
        except SmoothcertError as error:
            damaged.append(str(error))
    if not found and not damaged:
        raise RequestError(f"{output} {_without_runs(output, store)}")
    return sorted(found, key=lambda run: (run.begun, run.run)), damaged


def _without_runs(output: str, store: AnyStore) -> str:
    """What there is where no run is, and what to do."""
    if store.find(output) is not None:
        return "is a file; name the `output` of a job"
    if (listing := store.listing(output, most=1000)) is None:
        return f"does not exist; {instead_of(output, store)}"
    names = [PurePosixPath(entry.url).name for entry in listing.files]
    if "run.json" in names:
        return f"is a run itself; name the folder that holds it, or use `smoothcert status {output}`"
    names += [f"{PurePosixPath(url).name}/" for url in listing.folders]
    return f"holds no run but {listed(names) or 'nothing'}; name the `output` of a job"


def _in_short(run: Run) -> Listed:
    job, success, total = run.job, run.success() or {}, len(run.tasks)
    done = total - len(run.missing())
    return Listed(
        run=run.run_id,
        begun=_minute(run.record.get("created")),
        job=plain(run.name),
        architecture=job.model.architecture,
        checkpoint=plain(PurePosixPath(job.model.checkpoint).name),
        sha256=short_hash(run.checkpoint_sha256),
        ablation=ablation_in_words(job.ablation),
        limit=f"{job.images.limit:,}" if run.partial else "",
        shards=f"{done:,}/{total:,}",
        images=f"{success['rows']:,}" if success else "",
        clean=percent(success.get("clean_accuracy")),
        smoothed=percent(success.get("smoothed_accuracy")),
        state=("complete" if success and done == total else "incomplete") + (" PARTIAL" if run.partial else ""),
    )


def _minute(created: object) -> str:
    """When a run began, in UTC; run.json may have been written by hand."""
    try:
        return f"{datetime.fromisoformat(str(created)).astimezone(UTC):%Y-%m-%d %H:%M}"
    except ValueError:
        return "-"


def ablation_in_words(ablation: Ablation) -> str:
    inside = "" if ablation.edges == "wrap" else f" {ablation.edges}"
    return f"{ablation.kind} {ablation.size} stride {ablation.stride}{inside}"


def show_runs(runs: Sequence[Listed], console: Console) -> None:
    """Print a line a run where there is room for it, as there is where output is piped; else some lines a run."""
    numbers = ("limit", "shards", "images", "clean", "smoothed")
    columns = [Column(title, no_wrap=True, justify="right" if title in numbers else "left") for title in Listed._fields]
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, highlight=True)
    for run in runs:
        table.add_row(*run)
    if runs and fits(console, table):
        show(console, table)
        return
    for line in (line for run in runs for line in _lines_of(run)):
        say(console, line, indent="    ")


def _lines_of(run: Listed) -> list[str]:
    limit = f", limit {run.limit}" if run.limit else ""
    images = f", {run.images} images" if run.images else ""
    return [
        f"{run.run}  {run.begun}  {run.state}, {run.shards} shards{images}",
        f"  {run.job}",
        f"  {run.ablation}{limit}, clean accuracy {run.clean}, smoothed {run.smoothed}",
        f"  {run.architecture}, {run.checkpoint} {run.sha256}",
    ]


def status_table(run: Run) -> Table:
    """The state of a run; reads what is published."""
    status, done, total = Counter[str](), 0, len(run.tasks)
    complete = run.complete()  # before the files are read: _SUCCESS is written after them
    for file in read_published(run, ["status"]):
        status.update(file.rows["status"].to_pylist())
        done += 1
    missing = total - done
    errors = {name: count for name, count in status.items() if name != "ok"}
    table = facts(run.name)
    table.columns[1].justify = "left"  # sentences, some of them long
    partial = f" PARTIAL: images.limit is {run.job.images.limit:,}" if run.partial else ""
    table.add_row("run id", run.run_id)
    table.add_row("checkpoint", plain(checkpoint(run.job.model.checkpoint, run.checkpoint_sha256)))
    table.add_row("ablation", ablation_in_words(run.job.ablation))
    table.add_row("state", ("complete" if complete else "incomplete") + partial)
    if not missing and not complete:
        table.add_row("", "every shard is published, _SUCCESS is missing: run the job's command again")
    table.add_row("shards", f"{done:,} of {total:,}")
    table.add_row("images", f"{status.total():,}")
    table.add_row("errors", ", ".join(f"{count:,} {name}" for name, count in sorted(errors.items())) or "0")
    for title, text in [*_times(run, missing), *_last_driver(run)]:
        table.add_row(title, plain(text))
    return table


def _last_driver(run: Run) -> list[tuple[str, str]]:
    """What the driver that ended last says of itself (diary.py)."""
    diaries = sorted(run.store.files(f"{run.url}/drivers"), key=lambda entry: entry.modified)
    if not diaries:
        return []
    try:
        *shards, driver = map(json.loads, run.store.read(diaries[-1].url).splitlines())
        outcomes = sorted(Counter(entry["outcome"] for entry in shards).items())
        rows = [("last driver", f"on {driver['node']}: " + ", ".join(f"{count:,} {what}" for what, count in outcomes))]
        return rows + [("failed", entry["reason"]) for entry in shards if entry["outcome"] == "failed"]
    except (ValueError, KeyError, TypeError):
        return [("last driver", f"its diary cannot be read: {diaries[-1].url}")]


def _times(run: Run, missing: int) -> list[tuple[str, str]]:
    """When shards were published, and how long the others take at the rate of the last ones."""
    times = sorted(entry.modified for entry in run.store.files(f"{run.url}/votes"))
    if not times:
        return []
    ago = max(0.0, time.time() - times[-1])
    rows = [("last shard", f"{datetime.fromtimestamp(times[-1], UTC):%Y-%m-%d %H:%M:%S} UTC, {span(ago)} ago")]
    recent = times[-_RECENT:]
    if missing and recent[-1] > recent[0]:
        each_s = (recent[-1] - recent[0]) / (len(recent) - 1)
        rows.append(("a shard takes", span(each_s)))
        rows.append(("left, at that rate", span(missing * each_s)))
    return rows
