"""The driver: certify a whole dataset, from a job file to Parquet.

It plans, writes run.json, tries the model on a few images, hands the shards to the fleet, checks what is published
against the plan, writes _SUCCESS and prints the table. State lives in storage alone, so after any interruption the same
command continues the run.

Not covered: several jobs in one pass (suite_driver.py).
"""

import json
from typing import TextIO

from smoothcert.manifests.job import Job
from smoothcert.pipeline.certify.conclusion import conclude
from smoothcert.pipeline.certify.one_pass import certify_missing, enter
from smoothcert.pipeline.certify.options import NO_OPTIONS, Options
from smoothcert.pipeline.certify.outcome import Outcome
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.console.looks import console_of, say


def certify_all(job: Job, options: Options = NO_OPTIONS, *, json_to: TextIO | None = None) -> int:
    """Certify every shard of the job that is not certified yet, and print the summary.

    Args:
        job: what to do.
        options: how.
        json_to: write one JSON object there; messages for people go to stderr.
    Returns:
        The exit code: 0 complete; 1 a shard failed, or too many images have no votes or no usable label.
    Raises:
        RequestError, RunError: the work cannot begin, or cannot continue.
    """
    return 1 if certify(job, options, json_to=json_to).problems else 0


def certify(job: Job, options: Options = NO_OPTIONS, *, json_to: TextIO | None = None) -> Outcome:
    """As `certify_all`, with the same arguments and errors; the result is what became of the run."""
    console = console_of(stderr=json_to is not None)
    plan = make_plan(job, allow_code=options.allow_code, adopt_across=options.adopt_across)
    for notice in plan.notices:
        say(console, f"notice: {notice}")
    entry = enter(plan, options)
    if plan.todo:
        certify_missing([entry], console)
    elif plan.run.success() is not None:
        say(console, f"nothing to do: run {plan.run.run_id} is complete")
    if entry.fault is not None:
        raise entry.fault
    outcome, described = conclude(entry, console)
    if json_to is not None:
        print(json.dumps(described), file=json_to)
    return outcome
