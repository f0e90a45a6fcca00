"""`smoothcert ...`: what each command takes and prints. Loads neither torch nor ray before it must.

Exit codes: 0 complete; 1 something failed, the lines say what; 2 the request is wrong; 130 interrupted.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table

from manifests.errors import RequestError, SmoothcertError
from manifests.job import Job, Storage, load_job

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prove over whole datasets that no adversarial patch can change what a classifier says.",
)

JobFile = Annotated[Path, typer.Argument(help="Job file (YAML).", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the job file; repeatable."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first N images; the run is marked PARTIAL.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; messages go to stderr.")]

EXAMPLES = Path(__file__).resolve().parents[1] / "manifests" / "examples"


def _command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Turn our errors into one line on stderr, and results into exit codes."""

    @wraps(function)
    def wrapper(*args: Any, **options: Any) -> None:
        try:
            code = function(*args, **options) or 0
        except SmoothcertError as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        except KeyboardInterrupt:
            print(f"\ninterrupted; go on with: {shlex.join(sys.argv)}", file=sys.stderr)
            code = 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        raise typer.Exit(code)

    return wrapper


def _load(job_file: Path, overrides: list[str] | None, limit: int | None) -> Job:
    return load_job(job_file, [*(overrides or []), *([] if limit is None else [f"images.limit={limit}"])])


@app.command()
@_command
def certify(
    job: JobFile,
    overrides: Overrides = None,
    limit: Limit = None,
    as_json: AsJson = False,
    strict_versions: Annotated[
        bool, typer.Option("--strict-versions", help="Refuse machines whose versions or devices differ.")
    ] = False,
) -> int:
    """Certify every image of a job: votes and certificates to Parquet, a table at the end."""
    from pipeline.certify_all import certify_all

    return certify_all(_load(job, overrides, limit), as_json=as_json, strict_versions=strict_versions)


@app.command()
@_command
def plan(
    job: JobFile,
    overrides: Overrides = None,
    limit: Limit = None,
    tflops: Annotated[float, typer.Option(min=1e-6, help="Rate to reckon with, TFLOP/s.")] = 1.0,
) -> None:
    """Show what a job would take, and what of it is done; computes no vote."""
    from pipeline.costs import plan_table

    table, notices, run_url = plan_table(_load(job, overrides, limit), tflops)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for notice in notices:
        console.print(f"notice: {notice}", markup=False)
    console.print(run_url, markup=False)


@app.command()
@_command
def runs(output: Annotated[str, typer.Argument(help="Folder that holds the runs.", show_default=False)]) -> None:
    """List the runs of an output: which id is which job, and how complete it is."""
    from pipeline.plan import find_run
    from workers.storage import store_for

    store = store_for(output, Storage())
    folder = Path(output).absolute()
    if not folder.is_dir():
        raise RequestError(f"{output}: no such folder; name the `output` of a job")
    folding = [Column(title, overflow="fold") for title in ("job", "model", "ablation", "shards", "rows", "state")]
    table = Table(Column("run", no_wrap=True), *folding, box=box.SIMPLE_HEAD, pad_edge=False)
    for url in sorted(str(path) for path in folder.iterdir() if path.is_dir()):
        run = find_run(url, store)
        if run is None:
            continue
        job = run.record["job"]
        done, success = len(run.tasks) - len(run.missing()), run.success()
        state = "complete" if success and not run.missing() else "incomplete"
        ablation = f"{job['ablation']['kind']} {job['ablation']['size']} stride {job['ablation']['stride']}"
        table.add_row(
            run.run_id,
            run.record["name"],
            job["model"]["architecture"],
            ablation,
            f"{done}/{len(run.tasks)}",
            f"{success['rows']:,}" if success else "",
            f"{state} PARTIAL" if run.partial else state,
        )
    Console(highlight=False).print(table)


@app.command()
@_command
def demo(
    folder: Annotated[Path, typer.Option(help="Where data/demo and runs are made.")] = Path(),
    as_json: AsJson = False,
) -> int:
    """Certify 20 photographs with the checkpoint that comes along; offline, in under a minute."""
    from pipeline.certify_all import certify_all
    from pipeline.demo import pack_demo_images

    images = pack_demo_images(folder / "data" / "demo")
    overrides = [f"images.shards={json.dumps(str(images))}", f"output={json.dumps(str(folder / 'runs'))}"]
    return certify_all(load_job(EXAMPLES / "demo.yaml", overrides), as_json=as_json)


def certify_script() -> None:
    """`python pipeline/certify_all.py`: the certify command alone."""
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    script.command()(certify)
    script()
