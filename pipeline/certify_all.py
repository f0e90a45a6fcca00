"""The driver: certify a whole dataset, from a job file to Parquet.

    python pipeline/certify_all.py [JOB]        as `smoothcert certify JOB`; without JOB, a job.yaml that lies there

The way of a run: plan, write run.json, try the model out, hand the shards to the fleet, check what is
published against the plan, write _SUCCESS, print the table. State lives in storage alone, so after any
interruption the same command goes on where the last one ended.
"""

import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if __name__ == "__main__":  # run as a script: the sibling folders lie beside this file's folder, or beside the file
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here if (here / "pipeline").is_dir() else here.parent))

from rich.console import Console

from manifests.errors import RunError, SmoothcertError
from manifests.job import Job
from pipeline.alike import Alike
from pipeline.events import Event
from pipeline.plan import Plan, begin, make_plan
from pipeline.progress import progress_of
from pipeline.summary import Summary, summarise, table_of
from workers.shard_task import Introduction, ShardTask

if TYPE_CHECKING:
    from pipeline.diary import Diary


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
        The exit code: 0 complete; 1 a shard failed, or too many images are without votes.
    Raises:
        RequestError, RunError: nothing can be done, or no more.
    """
    console = Console(stderr=json_to is not None, highlight=False, markup=False, emoji=False, soft_wrap=True)
    plan = make_plan(job)
    for notice in plan.notices:
        console.print(f"notice: {notice}")
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
        console.print(f"nothing to do: run {plan.run.run_id} is complete")
    summary = _summarise(plan)
    complete = not _missing(plan, summary)
    if complete:
        _finish(plan, summary)
    if json_to is not None:
        print(json.dumps(_as_json(plan, summary, rate, complete=complete)), file=json_to)
    console.print(table_of(summary, _title(plan, complete=complete), rate))
    for line in [*(f"failed: {reason}" for reason in failures), *_remarks(plan, summary)]:
        console.print(line)
    console.print(plan.run.url)
    return 0 if complete and not _too_many_errors(plan, summary) else 1


def _summarise(plan: Plan) -> Summary:
    return summarise(plan.run, plan.job.patches, labelled=plan.job.images.label is not None, clean=plan.job.clean)


def _too_many_errors(plan: Plan, summary: Summary) -> bool:
    return summary.without_votes > plan.job.max_error_share * summary.images


def _work(plan: Plan, todo: Sequence[ShardTask], console: Console, alike: Alike, *, shared: bool) -> "Diary":
    from pipeline import cluster  # ray takes a second to import, a finished run has no need of it
    from pipeline.diary import Diary
    from pipeline.fleet import Fleet

    console.print(f"run {plan.run.run_id}: {len(todo)} of {len(plan.tasks)} shards to do")
    cluster.connect()
    fleet = Fleet(plan, cluster.share_of(plan.job.execution))
    fleet.try_out(todo)
    if shared:  # another driver may be at work on them, in the order of their sizes
        todo = random.sample(todo, len(todo))
    diary = Diary(plan.run)
    with progress_of(console, todo) as progress:

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
            except SmoothcertError as error:  # a log: neither an interrupt nor the votes are lost with it
                progress.say(f"notice: what this driver did is not published: {error}")
    return diary


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
    if missing := _missing(plan, summary):
        yield f"{missing} of {len(plan.tasks)} shards are missing; the same command goes on from here"
    if _too_many_errors(plan, summary):
        yield (
            f"failed: {summary.without_votes} of {summary.images} images have no votes, more than max_error_share "
            f"({plan.job.max_error_share:g}) allows: see the columns status and error"
        )


if __name__ == "__main__":
    from pipeline.cli import certify_script

    certify_script()
