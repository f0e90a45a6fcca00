"""The driver: certify a whole dataset, from a job file to Parquet.

It plans, writes run.json, tries the model on a few images, hands the shards to the fleet, checks what is published
against the plan, writes _SUCCESS and prints the table. State lives in storage alone, so after any interruption the same
command continues the run.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from rich.console import Console

from smoothcert.manifests.errors import RunError, SmoothcertError
from smoothcert.manifests.job import Job
from smoothcert.pipeline.certify.alike import Alike
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.events import Event
from smoothcert.pipeline.certify.image_counts import count_images
from smoothcert.pipeline.certify.plan import Plan, make_plan
from smoothcert.pipeline.certify.progress import progress_of
from smoothcert.pipeline.console.looks import console_of, number_of, say, show
from smoothcert.pipeline.overview.notices import faults_of, notices_of
from smoothcert.pipeline.overview.runs_list import run_as_json
from smoothcert.pipeline.overview.status import FailedShard
from smoothcert.pipeline.overview.summary import Summary, summarise
from smoothcert.pipeline.overview.tables import summary_table
from smoothcert.workers.runs.layout import SUCCESS, VOTES
from smoothcert.workers.runs.records import SuccessRecord
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import Introduction, ShardTask

if TYPE_CHECKING:
    from smoothcert.pipeline.certify.diary import Diary
    from smoothcert.pipeline.certify.fleet import Fleet


def certify_all(
    job: Job,
    *,
    json_to: TextIO | None = None,
    strict_versions: bool = False,
    unsafe_overwrite: bool = False,
    allow_code: bool = False,
) -> int:
    """Certify every shard of the job that is not certified yet, and print the summary.

    Args:
        job: what to do.
        json_to: write one JSON object there; messages for people go to stderr.
        strict_versions: refuse actors whose versions or devices differ from each other's or from those of the
            published files.
        unsafe_overwrite: go on although the storage does not refuse to overwrite.
        allow_code: whether code that the job names may run.
    Returns:
        The exit code: 0 complete; 1 a shard failed, or too many images have no votes or no usable label.
    Raises:
        RequestError, RunError: the work cannot begin, or cannot continue.
    """
    ended = certify(
        job,
        json_to=json_to,
        strict_versions=strict_versions,
        unsafe_overwrite=unsafe_overwrite,
        allow_code=allow_code,
    )
    return 1 if ended.problems else 0


class Ended(NamedTuple):
    """The run, and why it is not complete or not good enough, a line each."""

    run: Run
    problems: list[str]


def certify(
    job: Job,
    *,
    json_to: TextIO | None = None,
    strict_versions: bool = False,
    unsafe_overwrite: bool = False,
    allow_code: bool = False,
) -> Ended:
    """As `certify_all`, with the same arguments and errors; the result is the run and its problems."""
    console = console_of(stderr=json_to is not None)
    plan = make_plan(job, allow_code=allow_code)
    for notice in plan.notices:
        say(console, f"notice: {notice}")
    done = _certify_missing(plan, console, strict=strict_versions, unsafe_overwrite=unsafe_overwrite)
    summary = summarise(plan.run, job)
    complete = len(summary.files) == len(plan.tasks)
    if complete:
        _finish(plan, summary)
    faults = list(faults_of(summary, job))
    if json_to is not None:
        print(json.dumps(_as_json(plan, summary, done, faults, complete=complete)), file=json_to)
    show(console, summary_table(summary, job, _title(plan, complete=complete), done.images_per_second))
    reasons = [*(failure.reason for failure in done.failures), *faults]
    for line in [*(f"failed: {reason}" for reason in reasons), *_remarks(plan, summary)]:
        say(console, line)
    if summary.files:
        say(console, f"rows, as Parquet: {plan.run.url}/{VOTES}")
    say(console, plan.run.url)
    if complete:
        return Ended(plan.run, faults)
    missing = f"{len(plan.tasks) - len(summary.files):,} of {len(plan.tasks):,} shards are missing"
    return Ended(plan.run, [missing, *reasons])


class _Outcome(NamedTuple):
    """What this driver did: images a second, None if there was nothing to do; and the shards that failed."""

    images_per_second: float | None
    failures: list[FailedShard]


def _certify_missing(plan: Plan, console: Console, *, strict: bool, unsafe_overwrite: bool) -> _Outcome:
    """Certify the shards that are not published."""
    finished = not plan.todo and plan.run.success() is not None
    begins = not finished and begin(plan, unsafe_overwrite=unsafe_overwrite)  # a finished run is only read
    published = summarise(plan.run, plan.job).environments if strict else ()
    alike = Alike(plan.run, plan.job.model.dtype, strict=strict, published=published)
    if plan.todo:
        diary = _work(plan, plan.todo, console, alike, shared=not begins)
        return _Outcome(diary.images_per_second, diary.failures)
    if finished:
        say(console, f"nothing to do: run {plan.run.run_id} is complete")
    return _Outcome(None, [])


def _work(plan: Plan, todo: Sequence[ShardTask], console: Console, alike: Alike, *, shared: bool) -> "Diary":
    from smoothcert.pipeline.certify.diary import Diary  # loads ray, which takes a second; a finished run needs none

    fleet = _start_fleet(plan, todo, console)
    if shared:  # another driver may be doing them by size, so take another order
        todo = random.sample(todo, len(todo))
    diary = Diary(plan.run)
    with progress_of(console, todo, partial(count_images, plan=plan)) as progress:

        def hear(events: Iterable[Event]) -> None:
            for event in events:
                if isinstance(event, Introduction):
                    alike.check(event)
                diary.write(event)
                progress.show(event)

        try:
            hear(fleet.certify(todo, shared=shared))
        except KeyboardInterrupt:
            progress.say("interrupted: shards of which all images are done are still being published")
            hear(fleet.wind_down())
            raise
        finally:
            try:
                diary.publish()
            except SmoothcertError as error:  # the diary is a log: it must not hide an interrupt or end the run
                progress.say(f"notice: what this driver did is not published: {error}")
    return diary


def _start_fleet(plan: Plan, todo: Sequence[ShardTask], console: Console) -> "Fleet":
    """Start the first actor and try the model out."""
    from smoothcert.pipeline.certify.fleet import Fleet
    from smoothcert.pipeline.certify.tryout import try_out
    from smoothcert.pipeline.cluster.connection import connect
    from smoothcert.pipeline.cluster.resources import share_of

    say(console, f"run {plan.run.run_id}: {len(todo):,} of {number_of(len(plan.tasks), 'shard')} to do")
    connect(partial(say, console))
    fleet = Fleet([plan], share_of(plan.job.execution))
    for notice in try_out(fleet, todo):
        say(console, f"notice: {notice}")
    return fleet


def _finish(plan: Plan, summary: Summary) -> None:
    """Write _SUCCESS: every shard is published.

    Raises:
        RunError: _SUCCESS exists and names other files.
    """
    run = plan.run
    success = run.success()
    if success is None:
        record = SuccessRecord(
            rows=summary.images, shards=len(run.tasks), files=summary.files, **summary.figures().as_json()
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


def _as_json(plan: Plan, summary: Summary, done: _Outcome, faults: Sequence[str], *, complete: bool) -> dict[str, Any]:
    """The figures of the run, the shards that failed now, and why else the exit code is 1."""
    return {
        **run_as_json(plan.run, complete=complete, published=len(summary.files)),
        **summary.figures().as_json(),
        "images_per_second": done.images_per_second,
        "failures": [failure._asdict() for failure in done.failures],
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
            "which computes all shards again"
        )
