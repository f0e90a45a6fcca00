"""Commands about runs as they lie in storage: list, progress, check, repair, delete."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.commands.arguments import (
    AllowCode,
    AsJson,
    FolderOfRuns,
    RunFolder,
    StorageSettings,
    load,
    place,
    place_if_given,
    storage_of_options,
    weights_if_given,
)
from smoothcert.pipeline.console.exit_codes import ends_with_exit_code
from smoothcert.pipeline.console.looks import console_of, say, show


@ends_with_exit_code
def runs(
    output: FolderOfRuns,
    storage: StorageSettings = None,
    as_json: AsJson = False,
) -> int:
    """List the runs in a folder: job, checkpoint, accuracy and progress of each."""
    from smoothcert.pipeline.overview.runs_list import runs_of
    from smoothcert.pipeline.overview.tables import show_runs

    found, damaged = runs_of(output, storage_of_options(storage))
    if as_json:
        from smoothcert.pipeline.overview.stored import as_json as stored_as_json
        from smoothcert.pipeline.overview.stored import stored_of

        stored = stored_of(found, datetime.now(UTC))
        damaged += [one.problem for one in stored if one.problem is not None]
        print(json.dumps(stored_as_json(stored)))
    else:
        show_runs(found, console_of())
    for line in damaged:
        say(console_of(stderr=True), f"error: {line}")
    return 1 if damaged else 0


@ends_with_exit_code
def status(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|JOB|SUITE",
            help="Folder of a run: OUTPUT/RUN_ID; or the file that made it.",
            show_default=False,
            callback=place,
        ),
    ],
    storage: StorageSettings = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> int:
    """Show the progress of a run, or of the runs of a file, from any machine; reads only storage."""
    from smoothcert.manifests.suite import Suite
    from smoothcert.pipeline.overview.status import Status, status_of
    from smoothcert.pipeline.overview.tables import status_table
    from smoothcert.workers.runs.run import open_run

    console, statuses, faults, suite = console_of(stderr=as_json), list[Status](), dict[str, str](), None
    if not Path(run).is_file():
        statuses = [status_of(open_run(run, storage_of_options(storage)))]
    else:
        from smoothcert.pipeline.certify.planned_status import planned_status_of

        if storage is not None:
            raise RequestError("--storage: the file says how to reach its storage; leave the option out")
        loaded = load(Path(run))
        entries, faults = planned_status_of(loaded, allow_code=allow_code)
        statuses = list(entries.values())
        if isinstance(loaded, Suite):
            described = {name: found.as_json() for name, found in entries.items()}
            described |= {name: {"problems": [fault]} for name, fault in faults.items()}
            suite = {"suite": loaded.name, "entries": described}
    if as_json:
        print(json.dumps(suite or statuses[0].as_json()))
    else:
        for found in statuses:
            show(console, status_table(found))
            say(console, found.run.url)
    for name, fault in faults.items():
        say(console, f"failed: {name}: {fault}")
    return 2 if faults else 0


@ends_with_exit_code
def verify(
    run: RunFolder,
    replay: Annotated[int, typer.Option(min=0, help="Vote again on this many random images.")] = 0,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed for choosing them; default: a new one, which is printed.")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Search this folder and all below for the tars of --replay; default: where the run says.",
            callback=place_if_given,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Take the weights of --replay from this file; default: the one that the run names.",
            callback=weights_if_given,
        ),
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Exit code 0 even if the run is unfinished.")
    ] = False,
    allow_code: AllowCode = False,
    storage: StorageSettings = None,
    as_json: AsJson = False,
) -> int:
    """Check a run with independent code. Exit code 1 if anything is wrong or the run is unfinished."""
    from smoothcert.pipeline.console.bars import counting
    from smoothcert.pipeline.processes import count_cores
    from smoothcert.pipeline.verify.check import verify as verify_run
    from smoothcert.pipeline.verify.verdict import as_json as report_as_json
    from smoothcert.pipeline.verify.verdict import report_table, verdict_of

    if not replay:
        for option, value, does in (
            ("--seed", seed, "chooses the images"),
            ("--images", images, "holds the tars"),
            ("--checkpoint", checkpoint, "holds the weights"),
        ):
            if value is not None:
                raise RequestError(f"{option}: {does} of --replay; name how many, such as --replay 100")
    with counting(console_of(stderr=True)) as hear:
        settings, processes = storage_of_options(storage), count_cores()
        report = verify_run(
            run,
            replay=replay,
            seed=seed,
            images=images,
            checkpoint=checkpoint,
            storage=settings,
            hear=hear,
            processes=processes,
            allow_code=allow_code,
        )
    if as_json:
        print(json.dumps(report_as_json(report)))
    else:
        console = console_of()
        for problem in report.problems:
            say(console, f"problem: {problem}")
        for notice in report.notices:
            say(console, f"notice: {notice}")
        show(console, report_table(report))
        say(console, verdict_of(report, allow_incomplete=allow_incomplete))
    return 1 if report.wrong or not (report.complete or allow_incomplete) else 0


@ends_with_exit_code
def repair(run: RunFolder, storage: StorageSettings = None, as_json: AsJson = False) -> None:
    """Move damaged files and a stale _SUCCESS to quarantine/; then run the same certify command again."""
    from smoothcert.pipeline.overview.runs_list import run_as_json
    from smoothcert.pipeline.processes import count_cores
    from smoothcert.pipeline.verify.repair import repair as repair_run
    from smoothcert.workers.runs.run import open_run

    settings = storage_of_options(storage)
    moved, opened = repair_run(run, settings, count_cores()), open_run(run, settings)
    complete = opened.complete()
    if as_json:
        described = run_as_json(opened, complete=complete, published=len(opened.published_tasks()))
        print(json.dumps(described | {"moved": [one._asdict() for one in moved]}))
        return
    console = console_of()
    for one in moved:
        say(console, f"{one.file} is now {one.to}")
    if moved:
        say(console, "run the command that made the run again: it replaces these files")
    elif complete:
        say(console, "nothing to repair")
    else:
        say(console, "nothing to repair; the run is UNFINISHED: run the command that made it again to continue")


@ends_with_exit_code
def prune(
    output: FolderOfRuns,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="last:N keeps the newest N complete runs of each job (by its name); days:N keeps what began in the "
            "last N days. Repeatable: a run stays if any rule keeps it.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only list.")] = False,
    storage: StorageSettings = None,
    as_json: AsJson = False,
) -> int:
    """Delete old runs. Baselines, what other runs have taken over from, and damaged runs always stay."""
    from smoothcert.pipeline.prune import prune as pruning

    found = pruning.plan_pruning(output, keep or (), storage_of_options(storage), datetime.now(UTC))
    left = pruning.delete_all(found) if yes else None
    if as_json:
        print(json.dumps(pruning.as_json(found, left)))
    else:
        pruning.show_pruning(found, left, console_of())
    for line in found.damaged:
        say(console_of(stderr=True), f"error: {line}")
    return 1 if found.damaged else 0
