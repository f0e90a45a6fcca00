"""Commands that make runs: estimate a job, certify it, or a suite every night; and the demo."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.pipeline.commands.arguments import (
    AdoptAcross,
    AllowCode,
    AsJson,
    JobFile,
    Limit,
    Overrides,
    RunFolder,
    StorageSettings,
    StrictVersions,
    UnsafeOverwrite,
    load,
    storage_of_options,
    with_limit,
)
from smoothcert.pipeline.console.exit_codes import ends_with_exit_code, ends_with_verdict, stdout_alone
from smoothcert.pipeline.console.looks import console_of, say, show

if TYPE_CHECKING:
    from rich.console import Console

    from smoothcert.pipeline.certify.costs import Costs


EXAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "examples"


@ends_with_exit_code
def plan(
    job: JobFile,
    overrides: Overrides = None,
    limit: Limit = None,
    tflops: Annotated[float, typer.Option(min=1e-6, help="Speed to assume, in TFLOP/s.")] = 1.0,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> int:
    """Estimate the cost of a job and show its progress, without any vote. Exit code 1 if a shard would fail."""
    from smoothcert.manifests.suite import Suite
    from smoothcert.pipeline.certify.costs import costs_of
    from smoothcert.pipeline.certify.suite_costs import suite_costs_of

    loaded = load(job, overrides, limit)
    console = console_of(stderr=as_json)
    if not isinstance(loaded, Suite):
        costs = costs_of(loaded, tflops, allow_code=allow_code)
        if as_json:
            print(json.dumps(costs.as_json()))
        _show_costs(costs, console, with_table=not as_json)
        return 1 if costs.failures else 0
    of_suite = suite_costs_of(loaded, tflops, allow_code=allow_code)
    if as_json:
        print(json.dumps({"suite": loaded.name} | of_suite.as_json()))
    for name, costs in of_suite.entries.items():
        _show_costs(costs, console, with_table=not as_json, name=f"{name}: ")
    for notice in of_suite.notices:
        say(console, f"notice: {notice}")
    for name, fault in of_suite.faults.items():
        say(console, f"failed: {name}: {fault}")
    if of_suite.faults:
        return 2
    return 1 if any(costs.failures for costs in of_suite.entries.values()) else 0


def _show_costs(costs: "Costs", console: "Console", *, with_table: bool, name: str = "") -> None:
    if with_table:
        show(console, costs.table)
    for notice in costs.notices:
        say(console, f"notice: {name}{notice}")
    for failure in costs.failures:
        say(console, f"failed: {name}{failure.reason}")
    if with_table:
        say(console, costs.plan.run.url)


@ends_with_exit_code
def certify(
    job: JobFile,
    overrides: Overrides = None,
    limit: Limit = None,
    as_json: AsJson = False,
    strict_versions: StrictVersions = False,
    unsafe_overwrite: UnsafeOverwrite = False,
    allow_code: AllowCode = False,
    adopt_across: AdoptAcross = False,
) -> int:
    """Certify every image of a job, or of each job of a suite: votes and certificates go to Parquet."""
    from smoothcert.manifests.suite import Suite
    from smoothcert.pipeline.certify.driver import certify_all
    from smoothcert.pipeline.certify.options import Options
    from smoothcert.pipeline.certify.suite_driver import certify_all_of

    options = Options(strict_versions, unsafe_overwrite, allow_code, adopt_across)
    loaded, json_to = load(job, overrides, limit), stdout_alone() if as_json else None
    if isinstance(loaded, Suite):
        return certify_all_of(loaded, options, json_to=json_to)
    return certify_all(loaded, options, json_to=json_to)


@ends_with_verdict
def nightly(
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="Suite file (YAML).", show_default=False)],
    overrides: Overrides = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="A trial: only the first N images; no baseline moves by itself."),
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option(
            "--notify",
            metavar="URL",
            envvar="SMOOTHCERT_NOTIFY",
            help="Post the verdict to this webhook as JSON; in Slack's form to Slack, or if the URL ends with #slack.",
        ),
    ] = None,
    strict_versions: StrictVersions = False,
    unsafe_overwrite: UnsafeOverwrite = False,
    allow_code: AllowCode = False,
    adopt_across: AdoptAcross = False,
    as_json: AsJson = False,
) -> int:
    """Certify a suite, compare each entry with its baseline, apply the gates, and write OUTPUT/history.

    Exit code 1: a gate tripped, or figures cannot be trusted; 2: the request is wrong; 3: a run did not finish, so run
    the same command again.
    """
    from smoothcert.pipeline.certify.options import Options
    from smoothcert.pipeline.nightly.night import nightly as run_night
    from smoothcert.workers.networks.described_jobs import load_suite

    return run_night(
        load_suite(suite, with_limit(overrides, limit)),
        Options(strict_versions, unsafe_overwrite, allow_code, adopt_across),
        notify=notify,
        moves_baselines=limit is None,
        json_to=stdout_alone() if as_json else None,
    )


@ends_with_exit_code
def accept(run: RunFolder, storage: StorageSettings = None, as_json: AsJson = False) -> None:
    """Make a run the baseline of the entries of suites whose nights made it."""
    from smoothcert.pipeline.nightly.accept import accept as accept_run

    accepted, damaged = accept_run(run, storage_of_options(storage))
    if as_json:
        print(json.dumps([one.as_json() for one in accepted]))
    else:
        for one in accepted:
            say(console_of(), one.line)
    for line in damaged:
        say(console_of(stderr=True), f"notice: {line}")


@ends_with_exit_code
def demo(
    folder: Annotated[Path, typer.Option(help="Folder in which to make data/demo and runs.")] = Path(),
    as_json: AsJson = False,
) -> int:
    """Certify 20 photographs with the shipped checkpoint, offline and in under a minute."""
    from smoothcert.pipeline.certify.driver import certify_all
    from smoothcert.pipeline.demo import pack_demo_images
    from smoothcert.workers.networks.described_jobs import load_job

    images = pack_demo_images(folder / "data" / "demo")
    overrides = [f"images.shards={json.dumps(str(images))}", f"output={json.dumps(str(folder / 'runs'))}"]
    return certify_all(load_job(EXAMPLES / "demo.yaml", overrides), json_to=stdout_alone() if as_json else None)
