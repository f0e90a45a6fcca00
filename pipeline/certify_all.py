"""The driver: certify a whole dataset, from a job file to Parquet.

    python pipeline/certify_all.py [JOB]        as `smoothcert certify JOB`; without JOB, a job.yaml that lies there

The way of a run: plan, write run.json, try the model out, hand the shards to the fleet, check what is
published against the plan, write _SUCCESS, print the table. State lives in storage alone, so after any
interruption the same command goes on where the last one ended.
"""

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run as a script: the sibling folders lie beside this file's folder, or beside the file
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here if (here / "pipeline").is_dir() else here.parent))

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from manifests.errors import RunError
from manifests.job import Job
from pipeline.alike import Alike
from pipeline.plan import Plan, begin, count_images, make_plan
from pipeline.summary import Summary, summarise, table_of
from workers.shard_task import Introduction, ShardReport, ShardTask

if TYPE_CHECKING:
    from pipeline.fleet import Event


@dataclass
class Outcome:
    """What a driver did: shards that failed and went back, with their reasons; rows and seconds of its own work."""

    failures: list[str] = field(default_factory=list)
    requeued: list[str] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float | None:
        return self.rows / self.seconds if self.rows else None


def certify_all(
    job: Job, *, as_json: bool = False, strict_versions: bool = False, unsafe_overwrite: bool = False
) -> int:
    """Certify every shard of the job that is not certified yet, and print the summary.

    Args:
        job: what to do.
        as_json: print one JSON object on stdout; messages for people go to stderr.
        strict_versions: refuse actors whose versions or devices differ from each other's or from those of the
            published files.
        unsafe_overwrite: go on although the storage does not refuse to overwrite.
    Returns:
        The exit code: 0 complete; 1 a shard failed, or too many images are without votes.
    Raises:
        RequestError, RunError: nothing can be done, or no more.
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    plan = make_plan(job)
    begins = begin(plan, unsafe_overwrite=unsafe_overwrite)
    todo = plan.todo()
    outcome = Outcome()
    if todo:
        published = _summarise(plan).environments if strict_versions else ()
        alike = Alike(job.model.dtype, strict=strict_versions, published=published)
        outcome = _work(plan, todo, console, alike, shared=not begins)
    elif plan.run.success() is not None:
        console.print(f"nothing to do: run {plan.run.run_id} is complete")
    summary = _summarise(plan)
    complete = _finish(plan, summary)
    if as_json:
        print(json.dumps(_as_json(plan, summary, outcome, complete=complete)))
    _print_end(plan, summary, outcome, console, complete=complete)
    return 0 if complete and not _too_many_errors(plan, summary) else 1


def _summarise(plan: Plan) -> Summary:
    return summarise(plan.run, plan.job.patches, labelled=plan.job.images.label is not None, clean=plan.job.clean)


def _too_many_errors(plan: Plan, summary: Summary) -> bool:
    return summary.without_votes > plan.job.max_error_share * summary.images


def _work(plan: Plan, todo: Sequence[ShardTask], console: Console, alike: Alike, *, shared: bool) -> Outcome:
    from pipeline import cluster  # ray takes a second to import, a finished run has no need of it
    from pipeline import fleet as fleets

    console.print(f"run {plan.run.run_id}: {len(todo)} of {len(plan.tasks)} shards to do")
    cluster.connect()
    fleet = fleets.Fleet(plan, cluster.share_of(plan.job.execution))
    fleet.try_out(todo)
    outcome = Outcome()
    start = time.monotonic()
    if shared:  # another driver may be at work on them, in the order of their sizes
        todo = random.sample(todo, len(todo))
    with _progress(console, plan, todo) as progress:
        try:
            for event in fleet.certify(todo, shared=shared):
                _hear(event, outcome, progress, alike)
        except KeyboardInterrupt:
            progress.say("interrupted: shards that are done are published yet")
            for event in fleet.wind_down():
                _hear(event, outcome, progress, alike)
            raise
    outcome.seconds = time.monotonic() - start
    return outcome


def _hear(event: "Event", outcome: Outcome, progress: "_Lines", alike: Alike) -> None:
    from pipeline import fleet as fleets

    match event:
        case Introduction():
            alike.check(event)
        case fleets.Beat():
            progress.beat(event.task, event.images)
        case ShardReport():
            outcome.rows += event.rows
            progress.done(event)
        case fleets.FoundPublished():
            progress.found(event.task)
        case fleets.Requeued():
            outcome.requeued.append(event.reason)
            progress.say(f"again: {event.task.shard.name}: {event.reason}")
        case fleets.Failure():
            outcome.failures.append(event.reason)
            progress.failed(event.reason)


def _finish(plan: Plan, summary: Summary) -> bool:
    """Write _SUCCESS if every shard is published; whether the run is complete."""
    run = plan.run
    if run.missing():
        return False
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
    return True


def _as_json(plan: Plan, summary: Summary, outcome: Outcome, *, complete: bool) -> dict[str, Any]:
    return {
        "run_id": plan.run.run_id,
        "path": plan.run.url,
        "complete": complete,
        "partial": plan.run.partial,
        **summary.as_json(),
        "images_per_second": outcome.images_per_second,
    }


def _print_end(plan: Plan, summary: Summary, outcome: Outcome, console: Console, *, complete: bool) -> None:
    marks = [mark for mark, holds in (("PARTIAL", plan.run.partial), ("INCOMPLETE", not complete)) if holds]
    console.print(table_of(summary, " ".join([plan.job.name, *marks]), outcome.images_per_second))
    for reason in outcome.failures:
        console.print(f"failed: {reason}", markup=False)
    if len(summary.environments) > 1:
        made = "; ".join(f"{count} files by {environment}" for environment, count in summary.environments.items())
        console.print(
            f"notice: mixed versions or devices, votes of tiny margins may depend on them: {made}", markup=False
        )
    if not complete:
        missing = plan.run.missing()
        console.print(f"{len(missing)} of {len(plan.tasks)} shards are missing; the same command goes on from here")
    if _too_many_errors(plan, summary):
        console.print(
            f"failed: {summary.without_votes} of {summary.images} images have no votes, more than max_error_share "
            f"({plan.job.max_error_share:g}) allows: see the columns status and error",
        )
    console.print(plan.run.url, markup=False)


class _Lines:
    """Progress where there is no terminal: one line a shard."""

    def __init__(self, console: Console, todo: Sequence[ShardTask]) -> None:
        self._console, self._total, self._finished = console, len(todo), 0

    def beat(self, task: ShardTask, images: int) -> None:
        pass

    def done(self, report: ShardReport) -> None:
        self._finished += 1
        errors = report.rows - report.statuses.get("ok", 0)
        self.say(
            f"[{self._finished}/{self._total}] {report.task.shard.name}: {report.rows} images, {errors} errors, "
            f"{report.rows / report.seconds:.1f} images/s"
        )

    def found(self, task: ShardTask) -> None:
        self._finished += 1
        self.say(f"[{self._finished}/{self._total}] {task.shard.name}: published by another driver")

    def failed(self, reason: str) -> None:
        self._finished += 1
        self.say(f"[{self._finished}/{self._total}] failed: {reason}")

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)


class _Bar(_Lines):
    """Progress on a terminal: images done, rate, time left; the shards' lines above it."""

    def __init__(self, console: Console, todo: Sequence[ShardTask], progress: Progress, total: int) -> None:
        super().__init__(console, todo)
        self._progress = progress
        self._bar = progress.add_task("certify", total=total, rate="")
        self._images: dict[int, int] = {}
        self._start = time.monotonic()

    def beat(self, task: ShardTask, images: int) -> None:
        self._images[task.index] = images
        done = sum(self._images.values())
        rate = done / max(time.monotonic() - self._start, 1e-3)
        self._progress.update(self._bar, completed=done, rate=f"{rate:.1f} images/s")

    def done(self, report: ShardReport) -> None:
        self.beat(report.task, report.rows)
        super().done(report)


@contextmanager
def _progress(console: Console, plan: Plan, todo: Sequence[ShardTask]) -> Iterator[_Lines]:
    if not console.is_terminal:
        yield _Lines(console, todo)
        return
    total = 0
    for task in todo:
        with suppress(RunError, OSError):  # it will fail when its turn comes
            total += count_images(task, plan) or 0
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bar(console, todo, progress, total)


if __name__ == "__main__":
    from pipeline.cli import certify_script

    certify_script()
