"""The driver: certify a whole dataset, from a job file to Parquet.

The way of a run: plan, write run.json, try the model out, hand the shards to the fleet, check what is
published against the plan, write _SUCCESS, print the table. State lives in storage alone, so after any
interruption the same command continues the run.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console

from smoothcert.manifests.errors import RunError, SmoothcertError
from smoothcert.manifests.job import Job
from smoothcert.pipeline.certify.alike import Alike
from smoothcert.pipeline.certify.events import Event
from smoothcert.pipeline.certify.plan import Plan, begin, count_images, make_plan
from smoothcert.pipeline.certify.progress import progress_of
from smoothcert.pipeline.console.looks import console_of, number_of, say, show
from smoothcert.pipeline.overview.summary import Summary, left_out_notices, summarise, table_of
from smoothcert.workers.runs.shard_task import Introduction, ShardTask

if TYPE_CHECKING:
    from smoothcert.pipeline.certify.diary import Diary
    from smoothcert.pipeline.certify.fleet import Fleet


def certify_all(
    job: Job, *, json_to: TextIO | None = None, strict_versions: bool = False, unsafe_overwrite: bool = False
) -> int:
    """Certify every shard of the job that is not certified yet, and print the summary.

    Args:
        job: what to do.
        json_to: write one JSON object there; messages for people go to stderr.
        strict_versions: refuse actors whose versions or devices differ from each other's or from those of the
            published files.
        unsafe_overwrite: go on although the storage does not refuse to overwrite.
    Returns:
        The exit code: 0 complete; 1 a shard failed, or too many images have no votes or no usable label.
    Raises:
        RequestError, RunError: nothing can be done, or no more.
    """
    console = console_of(stderr=json_to is not None)
    plan = make_plan(job)
    for notice in plan.notices:
        say(console, f"notice: {notice}")
    todo = plan.todo
    finished = not todo and plan.run.success() is not None
    begins = not finished and begin(plan, unsafe_overwrite=unsafe_overwrite)  # a finished run is only read
    rate, failures = None, list[str]()
    published = _summarise(plan).environments if strict_versions else ()
    alike = Alike(plan.run, job.model.dtype, strict=strict_versions, published=published)
    if todo:
        diary = _work(plan, todo, console, alike, shared=not begins)
        rate, failures = diary.images_per_second, diary.failures
    elif finished:
        say(console, f"nothing to do: run {plan.run.run_id} is complete")
    summary = _summarise(plan)
    complete = not _missing(plan, summary)
    if complete:
        _finish(plan, summary)
    if json_to is not None:
        print(json.dumps(_as_json(plan, summary, rate, complete=complete)), file=json_to)
    faults = list(_faults(plan, summary))
    show(console, table_of(summary, job, _title(plan, complete=complete), rate))
    for line in [*(f"failed: {reason}" for reason in [*failures, *faults]), *_remarks(plan, summary)]:
        say(console, line)
    say(console, plan.run.url)
    return 0 if complete and not faults else 1


def _summarise(plan: Plan) -> Summary:
    return summarise(plan.run, plan.job)


def _faults(plan: Plan, summary: Summary) -> Iterator[str]:
    """Why figures of a complete run are not to be trusted, a line each."""
    job = plan.job
    if summary.unusable > job.max_error_share * summary.images:
        kinds = ((summary.without_votes, "votes"), (summary.labels.bad, "usable label"))
        what = " and ".join(f"{count} of {summary.images} images have no {kind}" for count, kind in kinds if count)
        yield f"{what}, more than max_error_share ({job.max_error_share:g}) allows: see the columns status and error"
    if misnumbered := summary.labels.misnumbered(job.images, job.model.classes):
        yield f"images.label: {misnumbered}"


def _work(plan: Plan, todo: Sequence[ShardTask], console: Console, alike: Alike, *, shared: bool) -> "Diary":
    from smoothcert.pipeline.certify.diary import Diary  # loads ray, which takes a second; a finished run needs none

    fleet = _start_fleet(plan, todo, console)
    if shared:  # another driver may be doing them, in the order of their sizes
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


def _missing(plan: Plan, summary: Summary) -> int:
    return len(plan.tasks) - len(summary.files)


def _finish(plan: Plan, summary: Summary) -> None:
    """Write _SUCCESS; every shard is published.

    Raises:
        RunError: it is there and names other files.
    """
    run = plan.run
    if run.success() is None:
        success = {"rows": summary.images, "shards": len(run.tasks), **summary.as_json(), "files": summary.files}
        run.store.publish(run.url, "_SUCCESS", json.dumps(success, indent=1, sort_keys=True).encode())
    there = (run.success() or {}).get("files")
    if there != summary.files:
        changed = sorted(name for name in summary.files if (there or {}).get(name) != summary.files[name])
        raise RunError(
            f"{run.url}/_SUCCESS does not agree with {', '.join(changed) or 'the published files'}: changed after "
            "the run was complete; restore the files, or `smoothcert repair` the run and run the same command again"
        )


def _as_json(plan: Plan, summary: Summary, rate: float | None, *, complete: bool) -> dict[str, Any]:
    return {
        "run_id": plan.run.run_id,
        "path": plan.run.url,
        "complete": complete,
        "partial": plan.run.partial,
        **summary.as_json(),
        "images_per_second": rate,
    }


def _title(plan: Plan, *, complete: bool) -> str:
    marks = [mark for mark, holds in (("PARTIAL", plan.run.partial), ("INCOMPLETE", not complete)) if holds]
    return " ".join([plan.job.name, *marks])


def _remarks(plan: Plan, summary: Summary) -> Iterator[str]:
    """What a reader of the table must know besides."""
    if len(summary.environments) > 1:
        made = "; ".join(f"{count} files by {environment}" for environment, count in summary.environments.items())
        yield f"notice: mixed versions or devices, votes of tiny margins may depend on them: {made}"
    yield from (f"notice: {notice}" for notice in left_out_notices(summary.left_out))
    if missing := _missing(plan, summary):
        yield (
            f"{missing:,} of {len(plan.tasks):,} shards are missing. Finished shards are kept: run the same "
            "command again to try the missing ones. A repaired tar usually has another size: it makes another run, "
            "which computes all shards again"
        )
