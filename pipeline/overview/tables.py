"""How the figures of runs look: the tables of `smoothcert certify`, `status` and `runs`.

Not covered: where the figures come from (summary.py, status.py, runs_list.py).
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath

from rich import box
from rich.console import Console
from rich.table import Table

from smoothcert.manifests.ablation import ablation_in_words, accuracy_name
from smoothcert.manifests.job import Job
from smoothcert.pipeline.console.certified import certified_rows
from smoothcert.pipeline.console.looks import (
    DASH,
    checkpoint,
    digits,
    facts,
    fits,
    percent,
    plain,
    say,
    short_hash,
    show,
    span,
)
from smoothcert.pipeline.overview.runs_list import RunInShort
from smoothcert.pipeline.overview.status import LastDriver, Status
from smoothcert.pipeline.overview.summary import Summary

_RIGHT_ALIGNED = ("limit", "shards", "images", "clean", "smoothed")


def summary_table(summary: Summary, job: Job, title: str, images_per_second: float | None) -> Table:
    """The table at the end of a run; an accuracy that does not exist is a dash."""
    table = facts(title, columns=2)
    errors = _errors(summary.status)
    table.add_row("images", f"{summary.images:,}", "")
    table.add_row("errors", f"{sum(errors.values()):,}", _in_words(errors))
    if summary.without_votes:
        table.add_row("without votes", f"{summary.without_votes:,}", plain(str(summary.first_without_votes)))
    if summary.labels.bad:
        table.add_row("bad labels", f"{summary.labels.bad:,}", plain(str(summary.labels.first_bad)))
    if summary.rotated:
        treatment = "turned upright" if job.preprocess.orient else "taken as stored"
        table.add_row("rotated by EXIF", f"{summary.rotated:,}", treatment)
    table.add_row("clean accuracy", percent(summary.clean_accuracy), "")
    table.add_row(accuracy_name(job.ablation), percent(summary.smoothed_accuracy), "")
    _add_certified(table, summary)
    if images_per_second is not None:
        table.add_section()
        table.add_row("images/s", digits(images_per_second), "")
    return table


def _add_certified(table: Table, summary: Summary) -> None:
    if summary.certified:
        table.add_section()
    for row in certified_rows([one.as_json() for one in summary.certified], labelled=summary.labelled):
        table.add_row(*row)


def status_table(status: Status) -> Table:
    """How far a run has come."""
    run = status.run
    table = facts(run.name)
    table.columns[1].justify = "left"  # sentences, some of them long
    partial = f" PARTIAL: images.limit is {run.job.images.limit:,}" if run.partial else ""
    table.add_row("run id", run.run_id)
    table.add_row("checkpoint", plain(checkpoint(run.job.model.checkpoint, run.checkpoint_sha256)))
    table.add_row("ablation", ablation_in_words(run.job.ablation))
    table.add_row("state", ("complete" if status.complete else "incomplete") + partial)
    if not status.missing and not status.complete:
        table.add_row("", "every shard is published, _SUCCESS is missing: run the job's command again")
    table.add_row("shards", f"{status.published:,} of {len(run.tasks):,}")
    table.add_row("images", f"{sum(status.rows.values()):,}")
    table.add_row("errors", _in_words(_errors(status.rows)) or "0")
    for title, text in [*_times(status), *_last_driver(status.last_driver)]:
        table.add_row(title, plain(text))
    return table


def _errors(status: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(status.items()) if name != "ok"}


def _in_words(errors: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in errors.items())


def _times(status: Status) -> Iterator[tuple[str, str]]:
    """When the last shard was published, and how long the missing ones take at the rate of the last ones."""
    last_s = status.last_published_s
    if last_s is None:
        return
    ago = span(max(0.0, time.time() - last_s))
    yield "last shard", f"{datetime.fromtimestamp(last_s, UTC):%Y-%m-%d %H:%M:%S} UTC, {ago} ago"
    if status.missing and status.seconds_per_shard is not None and status.seconds_left is not None:
        yield "a shard takes", span(status.seconds_per_shard)
        yield "left, at that rate", span(status.seconds_left)


def _last_driver(driver: LastDriver | None) -> Iterator[tuple[str, str]]:
    if driver is None:
        return
    if driver.node is None:
        yield "last driver", f"its diary cannot be read: {driver.url}"
        return
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in driver.outcomes)
    yield "last driver", f"on {driver.node}: {outcomes}"
    yield from (("failed", failure.reason) for failure in driver.failures)


def show_runs(runs: Sequence[RunInShort], console: Console) -> None:
    """Print a table where it fits, as it does where output is piped; otherwise four lines per run."""
    table = _runs_table(runs)
    if runs and fits(console, table):
        show(console, table)
        return
    for line in (line for run in runs for line in _lines_of(run)):
        say(console, line, indent="    ")


def _runs_table(runs: Sequence[RunInShort]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, highlight=True)
    rows = [_cells(run) for run in runs]
    for title in rows[0] if rows else ():
        table.add_column(title, no_wrap=True, justify="right" if title in _RIGHT_ALIGNED else "left")
    for row in rows:
        table.add_row(*row.values())
    return table


def _cells(short: RunInShort) -> dict[str, str]:
    """A run as text; a dash replaces what does not exist, such as an accuracy without labels."""
    run, success = short.run, short.success
    return {
        "run": run.run_id,
        "begun": DASH if short.begun is None else f"{short.begun:%Y-%m-%d %H:%M}",
        "job": plain(run.name),
        "architecture": run.job.model.architecture,
        "checkpoint": plain(PurePosixPath(run.job.model.checkpoint).name),
        "sha256": short_hash(run.checkpoint_sha256),
        "ablation": ablation_in_words(run.job.ablation),
        "limit": f"{run.job.images.limit:,}" if run.partial else "",
        "shards": f"{short.published:,}/{len(run.tasks):,}",
        "images": "" if success is None else f"{success.rows:,}",
        "clean": DASH if success is None else percent(success.clean_accuracy),
        "smoothed": DASH if success is None else percent(success.smoothed_accuracy),
        "state": ("complete" if short.complete else "incomplete") + (" PARTIAL" if run.partial else ""),
    }


def _lines_of(run: RunInShort) -> list[str]:
    cells = _cells(run)
    limit = f", limit {cells['limit']}" if cells["limit"] else ""
    images = f", {cells['images']} images" if cells["images"] else ""
    return [
        f"{cells['run']}  {cells['begun']}  {cells['state']}, {cells['shards']} shards{images}",
        f"  {cells['job']}",
        f"  {cells['ablation']}{limit}, clean accuracy {cells['clean']}, smoothed {cells['smoothed']}",
        f"  {cells['architecture']}, {cells['checkpoint']} {cells['sha256']}",
    ]
