"""`smoothcert ...`: the arguments of each command. Loads neither torch, ray nor pydantic before a command needs them.

Not covered: exit codes and errors (console/exit_codes.py); the script of a cluster (script.py).
"""

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Certificate, RuleName, Subject
from smoothcert.manifests.version import __version__
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.pipeline.console.exit_codes import ends_with_exit_code, ends_with_verdict, stdout_alone
from smoothcert.pipeline.console.looks import console_of, say, show

if TYPE_CHECKING:  # pydantic takes longer to load than all else
    from rich.console import Console

    from smoothcert.manifests.job import Job, Storage
    from smoothcert.manifests.studies import Study
    from smoothcert.manifests.suite import Suite
    from smoothcert.pipeline.certify.costs import Costs
    from smoothcert.pipeline.studies.whole_images import AnswerKind

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"smoothcert {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Prove over whole datasets that no adversarial patch can change what a classifier says."""


JobFile = Annotated[
    Path, typer.Argument(metavar="JOB|SUITE", help="Job file or suite file (YAML).", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Set a key of the file; repeatable."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first N images; the run is marked PARTIAL.")
]
StrictVersions = Annotated[
    bool, typer.Option("--strict-versions", help="Refuse machines whose versions or devices differ.")
]
UnsafeOverwrite = Annotated[
    bool, typer.Option("--unsafe-overwrite", help="Continue even if the output lets files be overwritten.")
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Run the code that model.architecture names (python:...).")
]
AdoptAcross = Annotated[
    bool, typer.Option("--adopt-across", help="Also take over shards that other versions or devices computed.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout; messages go to stderr.")]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists, unless it lies in a run.")]

StorageSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--storage",
        metavar="KEY=VALUE",
        help="A key of `storage`, as in a job file, such as anonymous=true; repeatable.",
    ),
]

ClassNames = Annotated[
    str | None,
    typer.Option(metavar="FILE|imagenet-1k", help="Names of the classes on the page: a line each, or JSON."),
]


def _place(url: str) -> str:
    """Make the path of a run, or of an output, absolute. A name that exists is a path, not a URL."""
    from smoothcert.manifests.locations import anchored

    return anchored(url)


def _place_if_given(url: str | None) -> str | None:
    return None if url is None else _place(url)


def _weights_if_given(url: str | None) -> str | None:
    """As `model.checkpoint` in a job file: a name of the hub stays as it is."""
    from smoothcert.manifests.locations import Anchored

    return None if url is None else str(Anchored(from_hub=True).anchor(url, Path.cwd()))


def _storage(settings: list[str] | None) -> "Storage":
    from smoothcert.manifests.job import storage_of

    return storage_of(settings or ())


def _refuse_url(output: Path, what: str) -> None:
    """Path would make a folder `s3:` here."""
    if output.parts[:1] and output.parts[0].endswith(":"):
        raise RequestError(f"{what}: {output.parts[0]}// is not written to; name a folder of this machine")


RunFolder = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Folder of a run: OUTPUT/RUN_ID.", show_default=False, callback=_place),
]

Target = Annotated[
    str,
    typer.Argument(metavar="RUN|JOB", help="Folder of a run, or a job file.", show_default=False),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the draw of the images, and of all else that is random.")
]
DrawnImages = Annotated[int, typer.Option("--limit", min=1, help="Measure N images, drawn at random.")]
Picture = Annotated[str | None, typer.Option(metavar="FILE", help="Write a picture (PNG) to this file.")]


class By(StrEnum):
    class_ = "class"


class Sort(StrEnum):
    slack = "slack"
    descending_slack = "-slack"
    key = "key"


class Norm(StrEnum):
    linf = "linf"
    l2 = "l2"


class Method(StrEnum):
    standard = "standard"
    apgd = "apgd"
    pgd = "pgd"
    fgsm = "fgsm"


class Loss(StrEnum):
    ce = "ce"
    dlr = "dlr"


class Only(StrEnum):
    uncertified = "uncertified"
    certified = "certified"
    all = "all"


class Format(StrEnum):
    csv = "csv"
    markdown = "markdown"


class Markdown(StrEnum):
    markdown = "markdown"


EXAMPLES = Path(__file__).resolve().parents[1] / "manifests" / "examples"


def _load(job_file: Path, overrides: list[str] | None = None, limit: int | None = None) -> "Job | Suite":
    from smoothcert.workers.networks.described_jobs import load_job_or_suite

    return load_job_or_suite(job_file, [*(overrides or []), *([] if limit is None else [f"images.limit={limit}"])])


@app.command()
@ends_with_exit_code
def init(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Weights: a name of timm, hf-hub:OWNER/NAME, a folder with config.json, or a file.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Tars: a folder, a pattern, or an index file.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="JOB", help="Job file to write; it must not exist.")
    ] = Path("job.yaml"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write a job file for a network and its images, with comments; plan and certify accept it."""
    from smoothcert.pipeline.init.init import init as write_job

    _refuse_url(output, "--output")
    written = write_job(model, data, output, overrides or ())
    if as_json:
        print(json.dumps(written.as_json()))
        return
    console = console_of()
    say(console, f"{written.path}: {written.summary}")
    for notice in written.notices:
        say(console, f"notice: {notice}")
    say(console, f"check its comments, then run: smoothcert plan {written.path}")


@app.command()
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
    loaded, json_to = _load(job, overrides, limit), stdout_alone() if as_json else None
    if isinstance(loaded, Suite):
        return certify_all_of(loaded, options, json_to=json_to)
    return certify_all(loaded, options, json_to=json_to)


@app.command()
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

    overrides = [*(overrides or []), *([] if limit is None else [f"images.limit={limit}"])]
    return run_night(
        load_suite(suite, overrides),
        Options(strict_versions, unsafe_overwrite, allow_code, adopt_across),
        notify=notify,
        moves_baselines=limit is None,
        json_to=stdout_alone() if as_json else None,
    )


@app.command()
@ends_with_exit_code
def accept(run: RunFolder, storage: StorageSettings = None, as_json: AsJson = False) -> None:
    """Make a run the baseline of the entries of suites whose nights made it."""
    from smoothcert.pipeline.nightly.accept import accept as accept_run

    accepted, damaged = accept_run(run, _storage(storage))
    if as_json:
        print(json.dumps([one.as_json() for one in accepted]))
    else:
        for one in accepted:
            say(console_of(), one.line)
    for line in damaged:
        say(console_of(stderr=True), f"notice: {line}")


@app.command()
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

    loaded = _load(job, overrides, limit)
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


@app.command()
@ends_with_exit_code
def runs(
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Folder that holds the runs.", show_default=False, callback=_place)
    ],
    storage: StorageSettings = None,
    as_json: AsJson = False,
) -> int:
    """List the runs in a folder: job, checkpoint, accuracy and progress of each."""
    from smoothcert.pipeline.overview.runs_list import runs_of
    from smoothcert.pipeline.overview.tables import show_runs

    found, damaged = runs_of(output, _storage(storage))
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


@app.command()
@ends_with_exit_code
def prune(
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Folder that holds the runs.", show_default=False, callback=_place)
    ],
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

    found = pruning.plan_pruning(output, keep or (), _storage(storage), datetime.now(UTC))
    left = pruning.delete_all(found) if yes else None
    if as_json:
        print(json.dumps(pruning.as_json(found, left)))
    else:
        pruning.show_pruning(found, left, console_of())
    for line in found.damaged:
        say(console_of(stderr=True), f"error: {line}")
    return 1 if found.damaged else 0


@app.command()
@ends_with_exit_code
def query(
    run: RunFolder,
    patch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIDE|HxW|A..B",
            help="Patch in pixels, or all sides from A to B; default: those of the job, or the threat of its masks.",
        ),
    ] = None,
    patches: Annotated[list[int] | None, typer.Option(min=1, help="Number of patches at once; repeatable.")] = None,
    stride: Annotated[list[int] | None, typer.Option(min=1, help="Only the votes at this coarser stride.")] = None,
    tolerance: Annotated[
        list[float] | None, typer.Option(min=0, help="Votes with smaller margins count as the attacker's.")
    ] = None,
    certificate: Annotated[
        list[Certificate] | None,
        typer.Option(help="recovery: the prediction stays; detection (masks): no change without an alarm."),
    ] = None,
    rule: Annotated[
        list[RuleName] | None,
        typer.Option(help="exact: the strongest; the published one: margin, made sound, and published for masks."),
    ] = None,
    alarm_below: Annotated[
        list[float] | None,
        typer.Option(min=0, metavar="T", help="Detection: masks with margins below T raise an alarm; repeatable."),
    ] = None,
    top: Annotated[
        list[int] | None,
        typer.Option(min=1, metavar="K", help="The class stays among the K classes with the most votes; repeatable."),
    ] = None,
    of: Annotated[list[Subject] | None, typer.Option(help="Which class: the predicted one, or the label.")] = None,
    by: Annotated[
        By | None, typer.Option(help="Also for each label, or each prediction if there are no labels.")
    ] = None,
    failing: Annotated[bool, typer.Option("--failing", help="List the images whose certificate fails.")] = False,
    sort: Annotated[
        Sort | None, typer.Option(help="Order of --failing: smallest slack first, largest first, or by key.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --failing, only the first N images.")] = None,
    parquet: Annotated[
        str | None, typer.Option(metavar="OUT", help="Write the answers for each image to this file.")
    ] = None,
    overwrite: Overwrite = False,
    storage: StorageSettings = None,
    as_json: AsJson = False,
    format: Annotated[Format | None, typer.Option(help="CSV or Markdown on stdout; messages go to stderr.")] = None,
) -> int:
    """Count the predictions of a run that no patch can change. Several values of an option make a grid."""
    from smoothcert.pipeline.query import output
    from smoothcert.pipeline.query.answering import answer
    from smoothcert.pipeline.query.answers import AnswersFile
    from smoothcert.pipeline.query.failing import Failing, refuse_several
    from smoothcert.pipeline.query.questions import parse_patches, questions_of
    from smoothcert.workers.runs.run import open_run
    from smoothcert.workers.storage.output_file import OutputFile

    if not failing and (sort is not None or limit is not None):
        raise RequestError("--sort and --limit are about the images of --failing; add it")
    if failing and by is not None:
        raise RequestError("--by and --failing exclude each other; use one")
    if as_json and format is not None:
        raise RequestError("--json and --format exclude each other; use one")
    settings = _storage(storage)
    opened = open_run(run, settings)
    questions = questions_of(
        opened.job,
        patches=parse_patches(patch or ()),
        counts=patches or (),
        strides=stride or (),
        tolerances=tolerance or (),
        certificate=[name.value for name in certificate or ()],
        rules=[name.value for name in rule or ()],
        alarm_below=alarm_below or (),
        top=top or (),
        of=[name.value for name in of or ()],
    )
    if failing:
        refuse_several(questions)
    listed = Failing(None if sort is None else sort.value, limit) if failing else None
    hear = [] if listed is None else [listed]
    if parquet is None:
        found = answer(opened, questions, by_class=by is not None, per_image=hear)
    else:
        with AnswersFile(OutputFile(parquet, "--parquet", overwrite, settings)) as file:
            found = answer(opened, questions, by_class=by is not None, per_image=[file, *hear])
            file.describe(found)
    form = "json" if as_json else "table" if format is None else format.value
    output.write(found, listed, form, console_of())
    for notice in output.notices_of(found, listed):
        say(console_of(stderr=True), f"notice: {notice}")
    for problem in found.problems:
        say(console_of(stderr=True), f"failed: {problem}")
    return 1 if found.problems else 0


@app.command()
@ends_with_exit_code
def attack(
    target: Target,
    patch: Annotated[
        str | None, typer.Option(metavar="SIDE|HxW", help="Attack with such a patch; default of masks: their threat.")
    ] = None,
    norm: Annotated[Norm | None, typer.Option(help="Attack the whole-image classifier with small changes.")] = None,
    eps: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Size of the changes for pixels from 0 to 1, such as 4/255.")
    ] = None,
    only: Annotated[Only | None, typer.Option(help="With --patch, which images; default: uncertified.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Attack N images, drawn at random.")] = None,
    seed: Seed = 0,
    places: Annotated[
        int | None, typer.Option(min=0, help="With --patch: places of the smallest slack to try; default: 4.")
    ] = None,
    random_places: Annotated[
        int | None, typer.Option(min=0, help="With --patch: random places to try after them; default: 1.")
    ] = None,
    method: Annotated[
        Method | None, typer.Option("--attack", help="With --norm: which attacks; default: standard.")
    ] = None,
    loss: Annotated[
        list[Loss] | None, typer.Option(help="With --patch: losses of APGD; repeatable; default: both.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of APGD or PGD; default: 30 (--patch), 100 (--norm).")
    ] = None,
    restarts: Annotated[int | None, typer.Option(min=1, help="Runs of APGD from other starts; default: 1.")] = None,
    queries: Annotated[
        int | None, typer.Option(min=0, help="Queries of Square; default: 100 a place (--patch), 5000 (--norm).")
    ] = None,
    overrides: Overrides = None,
    storage: StorageSettings = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> int:
    """Bound robust accuracy from above: search patches, or small changes, that change what a classifier says.

    Exit code 1 if images are missing, or if a certified image fell.
    """
    from smoothcert.pipeline.attack.request import patch_of_masks, request_of
    from smoothcert.pipeline.studies.plan import run_to_study

    named = target, overrides or (), _storage(storage)
    if patch is None and norm is None:
        patch = patch_of_masks(run_to_study(*named, allow_code=allow_code, begins=False).job.ablation)
    asked = request_of(
        patch=patch,
        norm=norm and norm.value,
        eps=eps,
        only=only and only.value,
        limit=limit,
        seed=seed,
        places=places,
        random_places=random_places,
        attack=method and method.value,
        losses=loss and tuple(one.value for one in loss),
        steps=steps,
        restarts=restarts,
        queries=queries,
    )
    run = run_to_study(*named, allow_code=allow_code, begins=patch is None)
    json_to = stdout_alone() if as_json else None
    console = console_of()
    answer = asked.answer(run, console, allow_code=allow_code)
    if json_to is None:
        answer.show(console)
    else:
        print(json.dumps(answer.as_json()), file=json_to)
    for line in [*(f"failed: {line}" for line in answer.problems), *(f"notice: {line}" for line in answer.notices)]:
        say(console, line)
    return 1 if answer.problems else 0


@app.command()
@ends_with_exit_code
def compare(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="Folder of the run before.", show_default=False, callback=_place)
    ],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="Folder of the run now.", show_default=False, callback=_place)
    ],
    patch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIDE|HxW|A..B", help="Patch in pixels, or all sides from A to B; default: those of both jobs."
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Changes of votes with smaller margins are counted apart.")
    ] = 0.0,
    gate: Annotated[
        Path | None, typer.Option(metavar="GATES", help="Gate file (YAML): exit code 1 if a gate trips.")
    ] = None,
    allow: Annotated[list[Reason] | None, typer.Option(help="Compare runs that differ so; repeatable.")] = None,
    markdown: Annotated[
        str | None, typer.Option(metavar="OUT", help="Write the comparison as Markdown to this file.")
    ] = None,
    html: Annotated[
        str | None, typer.Option(metavar="OUT", help="Write a page to this file, with the votes of lost images.")
    ] = None,
    names: ClassNames = None,
    parquet: Annotated[
        str | None, typer.Option(metavar="OUT", help="Write every image that changed to this file.")
    ] = None,
    overwrite: Overwrite = False,
    storage: StorageSettings = None,
    as_json: AsJson = False,
    format: Annotated[Markdown | None, typer.Option(help="Markdown on stdout.")] = None,
) -> int:
    """Compare two runs image by image: what the new one lost and gained. With gates, fail if it lost too much."""

    from smoothcert.manifests.gates import load_gates
    from smoothcert.pipeline.compare import record, verdict
    from smoothcert.pipeline.compare.comparison import compare as compare_runs
    from smoothcert.pipeline.compare.gates import evaluate
    from smoothcert.pipeline.pages.class_names import class_names
    from smoothcert.pipeline.query.questions import parse_patches
    from smoothcert.workers.runs.run import open_run
    from smoothcert.workers.storage.output_file import OutputFile

    if names is not None and html is None:
        raise RequestError("--names: the names stand on the page alone; add --html OUT")
    if as_json and format is not None:
        raise RequestError("--json and --format exclude each other; use one")
    settings = _storage(storage)
    named = {"--html": html, "--markdown": markdown, "--parquet": parquet}
    outputs = {
        option: OutputFile(place, option, overwrite, settings) for option, place in named.items() if place is not None
    }
    for output in outputs.values():
        output.check()
    gates = None if gate is None else load_gates(gate)
    patches = parse_patches(patch or ())
    runs = open_run(base, settings), open_run(new, settings)
    called = class_names(names, runs[1])
    found = compare_runs(*runs, patches=patches, tolerance=tolerance, allow=allow or ())
    judged = None if gates is None else evaluate(found, gates, datetime.now(UTC).date(), file=gate)
    if "--html" in outputs:
        from smoothcert.pipeline.compare.page import html_of  # takes seconds: it decodes images

        record.write_text(html_of(found, judged, called), outputs["--html"])
    if "--parquet" in outputs:
        record.write_changes(found, outputs["--parquet"])
    if "--markdown" in outputs:
        record.write_text(verdict.as_markdown(found, judged), outputs["--markdown"])
    if as_json:
        print(json.dumps(record.as_json(found, judged)))
    elif format is not None:
        print(verdict.as_markdown(found, judged), end="")
    else:
        verdict.show_comparison(found, judged, console_of())
    return 0 if (judged is None or judged.passed) and not found.problems else 1


@app.command()
@ends_with_exit_code
def sql(
    runs_and_statement: Annotated[
        list[str],
        typer.Argument(metavar='RUN... "SELECT ..."', help="Folders of runs, then a query.", show_default=False),
    ],
    parquet: Annotated[str | None, typer.Option(metavar="OUT", help="Write the answer to this file.")] = None,
    overwrite: Overwrite = False,
    storage: StorageSettings = None,
    as_json: AsJson = False,
    format: Annotated[Format | None, typer.Option(help="CSV or Markdown on stdout.")] = None,
) -> None:
    """Ask the files of one or several runs in SQL. Tables: images, certified, classes, ablations, runs."""
    from smoothcert.pipeline.sql import answers
    from smoothcert.pipeline.sql.relations import connect
    from smoothcert.workers.runs.run import open_run
    from smoothcert.workers.storage.output_file import OutputFile

    *folders, statement = runs_and_statement
    if not folders:
        raise RequestError('name a run, then the query in quotes: smoothcert sql RUN "select count(*) from images"')
    if (format is not None) + as_json + (parquet is not None) > 1:
        raise RequestError("--format, --json and --parquet exclude each other; use one")
    settings = _storage(storage)
    output = None if parquet is None else OutputFile(parquet, "--parquet", overwrite, settings)
    if output is not None:
        output.check()
    answer = answers.ask(connect([open_run(_place(run), settings) for run in folders], settings), statement)
    if output is not None:
        answers.write_parquet(answer, output)
    elif as_json:
        answers.write_json(answer, sys.stdout)
    elif format is Format.csv:
        answers.write_csv(answer, sys.stdout)
    elif format is Format.markdown:
        answers.write_markdown(answer, sys.stdout)
    else:
        answers.show_answer(answer, console_of())


@app.command()
@ends_with_exit_code
def report(
    run: RunFolder,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write; default: report-RUN_ID.")
    ] = None,
    patch: Annotated[
        int | None, typer.Option(min=1, help="Side of the square that the page is about; default: the job's first.")
    ] = None,
    names: ClassNames = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Images for rectangles, two patches, weak places; default: up to 1000.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of this choice.")] = 0,
    of_class: Annotated[int | None, typer.Option("--class", min=0, help="Choose only images of this class.")] = None,
    storage: StorageSettings = None,
    as_json: AsJson = False,
) -> int:
    """Write report.html, report.md and report.json about a run: figures, classes, weak places, images."""
    from smoothcert.pipeline.pages.class_names import class_names
    from smoothcert.pipeline.report.page import headline_of
    from smoothcert.pipeline.report.record import headline_as_json
    from smoothcert.pipeline.report.report import report_of, write_report
    from smoothcert.workers.runs.run import open_run
    from smoothcert.workers.storage.output_file import refuse_inside_a_run

    if output is not None:
        _refuse_url(output, "--output")
    opened = open_run(run, _storage(storage))
    called = class_names(names, opened)
    folder = output or Path(f"report-{opened.run_id}")
    refuse_inside_a_run(folder, "--output")
    found = report_of(opened, side=patch, sample=sample, seed=seed, of_class=of_class)
    paths = write_report(found, folder, called)
    if as_json:
        print(json.dumps(headline_as_json(found) | {"files": [str(path) for path in paths]}))
    else:
        for line in [*headline_of(found), *map(str, paths)]:
            say(console_of(), line)
    for problem in found.problems:
        say(console_of(stderr=True), f"failed: {problem}")
    return 1 if found.problems else 0


@app.command()
@ends_with_exit_code
def sensitivity(
    target: Target,
    share: Annotated[float, typer.Option(help="Share of the tokens that each draw changes.")] = 0.1,
    draws: Annotated[int, typer.Option(min=1, help="Draws of tokens for each image.")] = 8,
    noise: Annotated[float, typer.Option(help="Strength of the noise that corrupts pixels from 0 to 1.")] = 0.1,
    by_token: Annotated[
        bool, typer.Option("--by-token/--no-by-token", help="Also occlude each token alone: a forward pass for each.")
    ] = True,
    limit: DrawnImages = 1000,
    seed: Seed = 0,
    picture: Picture = None,
    overwrite: Overwrite = False,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    storage: StorageSettings = None,
    as_json: AsJson = False,
) -> int:
    """Measure what changes if a few tokens of the whole image change. It certifies nothing."""
    from smoothcert.manifests.studies import Sensitivity
    from smoothcert.manifests.yaml_file import validate
    from smoothcert.pipeline.sensitivity.answers import ANSWER

    raw = {"share": share, "draws": draws, "noise": noise, "by_token": by_token}
    settings = validate(Sensitivity, raw, "sensitivity")
    drawing = None if picture is None else (picture, overwrite)
    return _measure(target, settings, ANSWER, (limit, seed), drawing, overrides, allow_code, storage, as_json)


@app.command()
@ends_with_exit_code
def amplify(
    target: Target,
    iterations: Annotated[int, typer.Option(min=1, help="Rounds of power iteration; more come closer.")] = 10,
    exact_below: Annotated[
        int, typer.Option(min=0, help="Blocks with at most so many numbers get the exact value; slow if large.")
    ] = 1024,
    limit: DrawnImages = 100,
    seed: Seed = 0,
    picture: Picture = None,
    overwrite: Overwrite = False,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    storage: StorageSettings = None,
    as_json: AsJson = False,
) -> int:
    """Measure how much each encoder block can amplify a small change: the largest singular value of its Jacobian."""
    from smoothcert.manifests.studies import Amplification
    from smoothcert.manifests.yaml_file import validate
    from smoothcert.pipeline.amplify.answers import ANSWER

    settings = validate(Amplification, {"iterations": iterations, "exact_below": exact_below}, "amplify")
    drawing = None if picture is None else (picture, overwrite)
    return _measure(target, settings, ANSWER, (limit, seed), drawing, overrides, allow_code, storage, as_json)


def _measure(
    target: str,
    settings: "Study",
    kind: "AnswerKind",
    drawn: tuple[int, int],
    picture: tuple[str, bool] | None,
    overrides: list[str] | None,
    allow_code: bool,
    storage: list[str] | None,
    as_json: bool,
) -> int:
    """A study of whole images; `drawn` is limit and seed, `picture` its place and whether it is replaced."""
    from smoothcert.pipeline.studies.plan import run_to_study
    from smoothcert.pipeline.studies.selection import Choice
    from smoothcert.pipeline.studies.whole_images import answer, measure
    from smoothcert.workers.storage.output_file import OutputFile

    reach = _storage(storage)
    drawing = None if picture is None else OutputFile(picture[0], "--picture", picture[1], reach)
    if drawing is not None:
        drawing.check()
    run = run_to_study(target, overrides or (), reach, allow_code=allow_code)
    json_to = stdout_alone() if as_json else None
    measured = measure(run, settings, Choice(*drawn), kind, console_of(), allow_code=allow_code)
    answer(measured, kind, console_of(), json_to=json_to, picture=drawing)
    return 1 if measured.failures else 0


@app.command()
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
            callback=_place_if_given,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Take the weights of --replay from this file; default: the one that the run names.",
            callback=_weights_if_given,
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
    from smoothcert.pipeline.verify.check import verify as verify_run
    from smoothcert.pipeline.verify.processes import count_cores
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
        settings, processes = _storage(storage), count_cores()
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


@app.command()
@ends_with_exit_code
def status(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|JOB|SUITE",
            help="Folder of a run: OUTPUT/RUN_ID; or the file that made it.",
            show_default=False,
            callback=_place,
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
        statuses = [status_of(open_run(run, _storage(storage)))]
    else:
        from smoothcert.pipeline.certify.planned_status import planned_status_of

        if storage is not None:
            raise RequestError("--storage: the file says how to reach its storage; leave the option out")
        loaded = _load(Path(run))
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


@app.command()
@ends_with_exit_code
def repair(run: RunFolder, storage: StorageSettings = None, as_json: AsJson = False) -> None:
    """Move damaged files and a stale _SUCCESS to quarantine/; then run the same certify command again."""
    from smoothcert.pipeline.overview.runs_list import run_as_json
    from smoothcert.pipeline.verify.processes import count_cores
    from smoothcert.pipeline.verify.repair import repair as repair_run
    from smoothcert.workers.runs.run import open_run

    settings = _storage(storage)
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


@app.command()
@ends_with_exit_code
def pack(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder of class folders, Parquet file or folder, or CSV file.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for the tars and their index.", show_default=False)
    ],
    shard_images: Annotated[
        int | None, typer.Option(min=1, help="Most images in a tar; default: 1000, or any with --shard-bytes.")
    ] = None,
    shard_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most bytes in a tar, such as 500M.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of the images.")] = 0,
    in_order: Annotated[bool, typer.Option("--in-order", help="Keep the order of the source.")] = False,
    names: Annotated[str, typer.Option(metavar="PATTERN", help="Names of the tars.")] = "%05d.tar",
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|imagenet-1k", help="Names of the classes in their order; default: those of the source."
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of images or paths; default: the usual one.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of labels; default: the usual one.")
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Pack the images alone.")] = False,
    split: Annotated[
        str | None, typer.Option(help="Of a folder of Parquet files, those of this split.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pack images into tars that certify reads; run the same command again to continue."""
    from smoothcert.pipeline.console.bars import counting
    from smoothcert.pipeline.pack.pack import Options, bytes_of, lines_of
    from smoothcert.pipeline.pack.pack import pack as pack_images
    from smoothcert.pipeline.pack.shards import Limits
    from smoothcert.pipeline.pack.sources import Choice
    from smoothcert.workers.tars.class_names import class_names

    _refuse_url(output, "OUT")
    if no_labels and label is not None:
        raise RequestError("--label and --no-labels exclude each other; use one")
    most_bytes = None if shard_bytes is None else bytes_of(shard_bytes)
    options = Options(
        choice=Choice(image, label, labelled=not no_labels, split=split),
        limits=Limits(1000 if shard_images is None and most_bytes is None else shard_images, most_bytes),
        seed=None if in_order else seed,
        names=names,
        classes=None if classes is None else class_names(classes, "--classes"),
    )
    with counting(console_of(stderr=True)) as hear:
        packed = pack_images(source, output, options, hear)
    if as_json:
        print(json.dumps(packed.index.as_json()))
    else:
        for line in lines_of(packed, output):
            say(console_of(), line)


@app.command("import-checkpoint")
@ends_with_exit_code
def import_checkpoint(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Checkpoint of torch, or the index of a split one.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: beside FILE, as .safetensors.", show_default=False)
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="State dict to take if there are several; default: the usual one.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a pickled or split checkpoint to one safetensors file, without running anything in it."""
    from smoothcert.pipeline.import_checkpoint import import_checkpoint

    imported = import_checkpoint(file, output, key)
    if as_json:
        print(json.dumps(imported.as_json()))
    else:
        say(console_of(), imported.line)


@app.command()
@ends_with_exit_code
def finetune(
    training: Annotated[Path, typer.Argument(metavar="TRAIN", help="Training file (YAML).", show_default=False)],
    overrides: Overrides = None,
    local: Annotated[
        bool, typer.Option("--local", help="Train in this process, without Ray, whatever the file says.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier whose smoothed form can be certified; run the same command again to continue."""
    from smoothcert.pipeline.finetune import finetune as finetune_network
    from smoothcert.workers.networks.described_jobs import load_training

    loaded = load_training(training, [*(overrides or []), *(["execution.workers=1"] if local else [])])
    finetune_network(loaded, json_to=stdout_alone() if as_json else None)


@app.command()
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
