"""The end of a run's work: what is published is checked against the plan, _SUCCESS is written, the table is printed.

Not covered: the work itself (one_pass.py).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Console

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.certify.one_pass import Entry
from smoothcert.pipeline.certify.outcome import Outcome
from smoothcert.pipeline.certify.plan import Plan
from smoothcert.pipeline.console.looks import say, show
from smoothcert.pipeline.overview.notices import faults_of, notices_of
from smoothcert.pipeline.overview.runs_list import run_as_json
from smoothcert.pipeline.overview.summary import Summary, summarise
from smoothcert.pipeline.overview.tables import summary_table
from smoothcert.workers.runs.layout import SUCCESS, VOTES
from smoothcert.workers.runs.records import SuccessRecord


class Conclusion(NamedTuple):
    """What became of a run, and the same as `certify --json` says it."""

    outcome: Outcome
    as_json: dict[str, Any]


def conclude(entry: Entry, console: Console) -> Conclusion:
    """Check what is published, write _SUCCESS if nothing is missing, and print the table and what else to know.

    Raises:
        RequestError: versions or devices must not differ, but those of the files do.
        RunError: a file is damaged, or _SUCCESS exists and names other files.
    """
    plan = entry.plan
    summary = summarise(plan.run, plan.job)
    entry.alike.add_published(summary.environments)
    complete = len(summary.files) == len(plan.tasks)
    if complete:
        _finish(plan, summary)
    faults = list(faults_of(summary, plan.job))
    images_per_second = None if entry.diary is None else entry.diary.images_per_second
    show(console, summary_table(summary, plan.job, _title(plan, complete=complete), images_per_second))
    left = [str(entry.fault)] if entry.fault is not None and not complete else []
    reasons = [*left, *(failure.reason for failure in entry.failures), *faults]
    for line in [*(f"failed: {reason}" for reason in reasons), *_remarks(plan, summary)]:
        say(console, line)
    if summary.files:
        say(console, f"rows, as Parquet: {plan.run.url}/{VOTES}")
    say(console, plan.run.url)
    missing = f"{len(plan.tasks) - len(summary.files):,} of {len(plan.tasks):,} shards are missing"
    problems = faults if complete else [missing, *reasons]
    outcome = Outcome(
        "complete" if complete else "unfinished", tuple(problems), plan.run, summary.figures(), entry.work
    )
    return Conclusion(outcome, _as_json(entry, summary, images_per_second, faults, complete=complete))


def _finish(plan: Plan, summary: Summary) -> None:
    """Write _SUCCESS: every shard is published.

    Raises:
        RunError: _SUCCESS exists and names other files.
    """
    run = plan.run
    success = run.success()
    if success is None:
        record = SuccessRecord(
            rows=summary.images,
            shards=len(run.tasks),
            files=summary.files,
            adopted_from=summary.adopted_from,
            **summary.figures().as_json(),
        )
        run.store.publish(run.url, SUCCESS, record.encode())
        success = run.success()
    files = {} if success is None else success.files
    if files != summary.files:
        changed = sorted(name for name in summary.files if files.get(name) != summary.files[name])
        raise RunError(
            f"{run.url}/{SUCCESS} does not agree with {', '.join(changed) or 'the published files'}: changed after "
            "the run was complete; restore the files, or `smoothcert repair` the run and run the same command again"
        )


def _as_json(
    entry: Entry, summary: Summary, images_per_second: float | None, faults: Sequence[str], *, complete: bool
) -> dict[str, Any]:
    """The figures of the run, the shards that failed now, and why else the exit code is 1."""
    return {
        **run_as_json(entry.plan.run, complete=complete, published=len(summary.files)),
        **summary.figures().as_json(),
        "computed": entry.work.computed,
        "adopted_from": summary.adopted_from,
        "images_per_second": images_per_second,
        "failures": [failure._asdict() for failure in entry.failures],
        "faults": list(faults),
    }


def _title(plan: Plan, *, complete: bool) -> str:
    marks = [mark for mark, holds in (("PARTIAL", plan.run.partial), ("INCOMPLETE", not complete)) if holds]
    return " ".join([plan.job.name, *marks])


def _remarks(plan: Plan, summary: Summary) -> Iterator[str]:
    """What else a reader of the table must know, a line each."""
    yield from (f"notice: {notice}" for notice in notices_of(summary))
    if missing := len(plan.tasks) - len(summary.files):
        yield (
            f"{missing:,} of {len(plan.tasks):,} shards are missing. Finished shards are kept: run the same "
            "command again to try the missing ones. A repaired tar usually has another size: it makes another run, "
            "which takes over the shards that did not change"
        )
