"""Commands that read votes: questions, comparisons, SQL and the page about a run."""

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Certificate, RuleName, Subject
from smoothcert.pipeline.commands.arguments import (
    AsJson,
    ClassNames,
    Overwrite,
    RunFolder,
    StorageSettings,
    place,
    refuse_url,
    storage_of_options,
)
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.pipeline.console.exit_codes import ends_with_exit_code
from smoothcert.pipeline.console.looks import console_of, say


class By(StrEnum):
    class_ = "class"


class Sort(StrEnum):
    slack = "slack"
    descending_slack = "-slack"
    key = "key"


class Format(StrEnum):
    csv = "csv"
    markdown = "markdown"


class Markdown(StrEnum):
    markdown = "markdown"


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
    from smoothcert.pipeline.processes import count_cores
    from smoothcert.pipeline.query import output
    from smoothcert.pipeline.query.answering import PerImage, answer
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
    settings = storage_of_options(storage)
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
    hear: list[PerImage] = [] if listed is None else [listed]
    ask = partial(answer, opened, questions, by_class=by is not None, processes=count_cores())
    if parquet is None:
        found = ask(per_image=hear)
    else:
        with AnswersFile(OutputFile(parquet, "--parquet", overwrite, settings)) as file:
            found = ask(per_image=[file, *hear])
            file.describe(found)
    form = "json" if as_json else "table" if format is None else format.value
    output.write(found, listed, form, console_of())
    for notice in output.notices_of(found, listed):
        say(console_of(stderr=True), f"notice: {notice}")
    for problem in found.problems:
        say(console_of(stderr=True), f"failed: {problem}")
    return 1 if found.problems else 0


@ends_with_exit_code
def compare(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="Folder of the run before.", show_default=False, callback=place)
    ],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="Folder of the run now.", show_default=False, callback=place)
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
    settings = storage_of_options(storage)
    named = {"--html": html, "--markdown": markdown, "--parquet": parquet}
    outputs = {
        option: OutputFile(file, option, overwrite, settings) for option, file in named.items() if file is not None
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
    settings = storage_of_options(storage)
    output = None if parquet is None else OutputFile(parquet, "--parquet", overwrite, settings)
    if output is not None:
        output.check()
    answer = answers.ask(connect([open_run(place(run), settings) for run in folders], settings), statement)
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
        refuse_url(output, "--output")
    opened = open_run(run, storage_of_options(storage))
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
