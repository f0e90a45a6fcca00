"""Do a study: hand its parts to the fleet, hear of each, and mark it complete. The same command continues it.

Not covered: which images (selection.py); the answer (one room per kind).
"""

import random
from functools import partial
from typing import NamedTuple

import pyarrow as pa
from rich.console import Console

from smoothcert.pipeline.console.looks import number_of, say
from smoothcert.pipeline.fleet.events import Failure
from smoothcert.pipeline.fleet.progress import progress_of
from smoothcert.pipeline.studies.plan import StudyPlan


class Conducted(NamedTuple):
    """What there is of a study.

    Attributes:
        rows: of the published parts; None if there are none.
        failures: why parts are missing, a line each; none if the study is complete.
    """

    rows: pa.Table | None
    failures: list[str]


def conduct(plan: StudyPlan, console: Console) -> Conducted:
    """Measure the images that are missing, and read all rows.

    Args:
        plan: the study.
        console: where to say how it goes.
    Raises:
        RequestError, RunError: the work cannot begin, or cannot continue.
    """
    failures = _finish(plan, console)
    return Conducted(plan.study.rows() if plan.study.published() else None, failures)


def _finish(plan: StudyPlan, console: Console) -> list[str]:
    """Measure the images that are missing; why parts are missing still."""
    study = plan.study
    images = sum(len(task.images) for task in study.tasks)
    left = sum(len(task.images) for task in plan.todo)
    say(console, f"{study.record.kind} {study.record.study_id}: {left:,} of {number_of(images, 'image')} to do")
    reasons = _work(plan, console) if plan.todo else []
    if study.missing():
        return reasons or ["the study was not finished; run the same command again"]
    if study.success() is None:
        study.finish()
    return []


def _work(plan: StudyPlan, console: Console) -> list[str]:
    from smoothcert.pipeline.cluster.connection import connect  # ray takes a second to load
    from smoothcert.pipeline.cluster.resources import share_of
    from smoothcert.pipeline.fleet.fleet import Fleet
    from smoothcert.pipeline.studies.actor import StudyActor

    connect(partial(say, console))
    todo = list(plan.todo)
    random.shuffle(todo)  # another driver may be at work on the same study
    reasons = []
    fleet = Fleet([plan], share_of(plan.execution), StudyActor)
    try:
        with progress_of(console, todo, lambda task: task.limit) as progress:
            try:
                for event in fleet.work(todo, shared=True):
                    progress.show(event)
                    if isinstance(event, Failure):
                        reasons.append(event.reason)
            except KeyboardInterrupt:
                for event in fleet.wind_down():
                    progress.show(event)
                raise
    finally:
        fleet.close()
    return reasons
