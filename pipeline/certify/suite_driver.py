"""The driver of a suite: its jobs are certified in one pass, each into its own run.

Not covered: the pass (one_pass.py); a single job (driver.py).
"""

import json
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console

from smoothcert.manifests.errors import RequestError, SmoothcertError
from smoothcert.manifests.suite import Suite
from smoothcert.pipeline.certify.conclusion import conclude
from smoothcert.pipeline.certify.one_pass import Entry, certify_missing, enter
from smoothcert.pipeline.certify.options import NO_OPTIONS, Options
from smoothcert.pipeline.certify.outcome import Outcome, Work
from smoothcert.pipeline.certify.plan import Plan, find_tars, make_plan
from smoothcert.pipeline.console.looks import console_of, say
from smoothcert.workers.storage.store import AnyStore


def certify_all_of(suite: Suite, options: Options = NO_OPTIONS, *, json_to: TextIO | None = None) -> int:
    """As `certify_all` for a job (driver.py), for all jobs of a suite.

    Returns:
        The exit code: 0 all are complete; 2 the request of an entry is wrong; 1 anything else is not as it should be.
    """
    outcomes = certify_suite(suite, options, json_to=json_to).values()
    if any(outcome.state == "refused" for outcome in outcomes):
        return 2
    return 1 if any(outcome.problems for outcome in outcomes) else 0


def certify_suite(suite: Suite, options: Options = NO_OPTIONS, *, json_to: TextIO | None = None) -> dict[str, Outcome]:
    """Certify the jobs of a suite. What fails for one entry does not stop the others; its outcome says it.

    Args:
        suite: what to do.
        options, json_to: as for a job (driver.py).
    Returns:
        What became of each entry.
    Raises:
        RequestError, RunError: no entry can be planned, for a reason that is the same for all. Any other error is
            the outcome of the entries that it concerns.
    """
    console = console_of(stderr=json_to is not None)
    plans, faults = plans_of(suite, allow_code=options.allow_code, adopt_across=options.adopt_across)
    entries = dict[str, Entry]()
    for name, plan in plans.items():
        for notice in plan.notices:
            say(console, f"notice: {name}: {notice}")
        try:
            entries[name] = enter(plan, options, name)
        except SmoothcertError as error:
            faults[name] = error
    for name, fault in faults.items():
        say(console, f"failed: {name}: {fault}")
    _work_on(list(entries.values()), console)
    outcomes, described = dict[str, Outcome](), dict[str, Any]()
    for name in suite.jobs:
        outcomes[name], described[name] = _conclude(entries.get(name), faults.get(name), console)
    if json_to is not None:
        print(json.dumps({"suite": suite.name, "entries": described}), file=json_to)
    return outcomes


def plans_of(
    suite: Suite, *, allow_code: bool = False, adopt_across: bool = False
) -> tuple[dict[str, Plan], dict[str, SmoothcertError]]:
    """The plan of each entry, or why there is none.

    Raises:
        RequestError, RunError: there is none for any entry, for a reason that is the same for all.
    """
    first = next(iter(suite.jobs.values()))
    tars = find_tars(first.images, AnyStore(first.storage))
    plans, faults = dict[str, Plan](), dict[str, SmoothcertError]()
    for name, job in suite.jobs.items():
        try:
            plan = make_plan(job, tars, allow_code=allow_code, adopt_across=adopt_across)
            _refuse_same_run(plan, plans)
            plans[name] = plan
        except SmoothcertError as error:
            faults[name] = error
    if not plans and len({str(error) for error in faults.values()}) == 1:
        raise next(iter(faults.values()))
    return plans, faults


def _refuse_same_run(plan: Plan, plans: Mapping[str, Plan]) -> None:
    for name, other in plans.items():
        if other.run.run_id == plan.run.run_id:
            raise RequestError(f"this entry is the same run as {name} ({plan.run.run_id}); remove one of them")


def _work_on(entries: list[Entry], console: Console) -> None:
    """Certify what is missing. An error that ends the pass is the fault of each entry that is not finished."""
    for entry in entries:
        if not entry.plan.todo:
            say(console, f"{entry.name}: nothing to do: run {entry.run_id} has all its shards")
    todo = [entry for entry in entries if entry.plan.todo]
    if not todo:
        return
    try:
        certify_missing(todo, console)
    except SmoothcertError as error:
        for entry in todo:
            if entry.fault is None and entry.plan.run.missing():
                entry.fault = error


def _conclude(entry: Entry | None, fault: SmoothcertError | None, console: Console) -> tuple[Outcome, dict[str, Any]]:
    """What became of an entry, or of its fault before it could begin; and the same for JSON."""
    if entry is not None and isinstance(entry.fault, RequestError):
        fault = entry.fault
    if entry is not None and fault is None:
        try:
            outcome, described = conclude(entry, console)
        except SmoothcertError as error:
            fault = error
        else:
            return outcome, {"state": outcome.state, "problems": list(outcome.problems)} | described
    outcome = Outcome(
        "refused" if isinstance(fault, RequestError) else "unfinished",
        (str(fault),),
        None if entry is None else entry.plan.run,
        work=Work() if entry is None else entry.work,
    )
    return outcome, {"state": outcome.state, "problems": list(outcome.problems)}
