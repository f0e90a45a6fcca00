"""A study of whole images, from its begin to its answer. It needs no votes, so the run need not be complete.

Not covered: studies of images with votes (attack/); what an answer says (a room for each kind).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TextIO

import pyarrow as pa
from rich.console import Console

from smoothcert.manifests.studies import Study
from smoothcert.pipeline.console.looks import number_of, say
from smoothcert.pipeline.studies.about import about
from smoothcert.pipeline.studies.driver import conduct
from smoothcert.pipeline.studies.plan import plan_study
from smoothcert.pipeline.studies.selection import Choice, all_images
from smoothcert.workers.runs.run import Run
from smoothcert.workers.storage.output_file import OutputFile
from smoothcert.workers.studies.study import StoredStudy


class Figures(Protocol):
    """Figures over all images of a study."""

    @property
    def images(self) -> int:
        """How many were measured."""

    @property
    def not_measured(self) -> int:
        """Images with an error."""


class AnswerKind(NamedTuple):
    """How a kind of study answers.

    Attributes:
        figures_of: rows to figures; None: there are no rows.
        show: prints figures for people.
        as_json: figures as JSON.
        picture_of: figures of at least one image, and a title, as a PNG.
    """

    figures_of: Callable[[pa.Table | None], Any]
    show: Callable[[Any, Console], None]
    as_json: Callable[[Any], dict[str, Any]]
    picture_of: Callable[[Any, str], bytes]


@dataclass(frozen=True)
class Measured:
    """What there is of a study.

    Attributes:
        study: the study.
        figures: of the published parts.
        failures: why parts are missing, a line each.
    """

    study: StoredStudy
    figures: Figures
    failures: list[str]


def measure(
    run: Run, settings: Study, choice: Choice, kind: AnswerKind, console: Console, *, allow_code: bool = False
) -> Measured:
    """Measure images of a run, or continue to.

    Args:
        run: whose images are measured.
        settings: what is measured.
        choice: of the images.
        kind: of the study.
        console: where to say how it goes.
        allow_code: whether code that the job names may run.
    Raises:
        RequestError, RunError: the study cannot begin, or cannot continue.
    """
    plan = plan_study(run, settings, choice, lambda: all_images(run), allow_code=allow_code)
    rows, failures = conduct(plan, console)
    return Measured(plan.study, kind.figures_of(rows), failures)


def answer(
    measured: Measured, kind: AnswerKind, console: Console, *, json_to: TextIO | None, picture: OutputFile | None
) -> None:
    """Print what was found, and draw it.

    Args:
        measured: what was found.
        kind: of the study.
        console: for tables, and for what else to know.
        json_to: where to print JSON instead of tables.
        picture: where to draw; nothing is drawn without a measured image.
    Raises:
        RequestError, RunError: the picture cannot be written.
    """
    study, figures = measured.study, measured.figures
    if json_to is None:
        kind.show(figures, console)
        say(console, study.url)
    else:
        print(json.dumps(about(study, measured.failures) | kind.as_json(figures)), file=json_to)
    for failure in measured.failures:
        say(console, f"failed: {failure}")
    if figures.not_measured:
        images = number_of(figures.not_measured, "image")
        say(console, f"notice: {images} could not be measured; `error` in the rows says why")
    if picture is not None and figures.images:
        with picture.opened() as file:
            file.write(kind.picture_of(figures, f"{study.run.name}: {number_of(figures.images, 'image')}"))
