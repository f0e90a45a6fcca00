"""The answer of `smoothcert sensitivity`: tables for people, JSON for machines."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from smoothcert.pipeline.console.looks import DASH, number_of, say, show
from smoothcert.pipeline.sensitivity.figures import SensitivityFigures, figures_of
from smoothcert.pipeline.sensitivity.picture import picture_of
from smoothcert.pipeline.statistics import Mean
from smoothcert.pipeline.studies.whole_images import AnswerKind


def show_figures(figures: SensitivityFigures, console: Console) -> None:
    """Print the tables."""
    if not figures.ways:
        say(console, "No image was measured.")
        return
    say(
        console,
        f"Means over {number_of(figures.images, 'image')}, with standard errors. A measurement, no certificate.",
    )
    table = Table("tokens are", _right("predictions that change"), _right("loss of margin"))
    for way, found in figures.ways.items():
        table.add_row(way, f"{_cell(found.changed, 100)} %", _cell(found.margin_change))
    show(console, table)
    drifts = {way: found.drift for way, found in figures.ways.items() if found.drift is not None}
    if drifts:
        table = Table("layer", *map(_right, drifts), title="Drift of attention (total variation, 0 to 1):")
        for layer, cells in enumerate(zip(*drifts.values(), strict=True), start=1):
            table.add_row(str(layer), *map(_cell, cells))
        show(console, table)
    for line in _token_lines(figures):
        say(console, line)


def as_json(figures: SensitivityFigures) -> dict[str, Any]:
    """The figures in the keys of the JSON."""
    return {
        "images": figures.images,
        "not_measured": figures.not_measured,
        "ways": {
            way: {
                "changed": found.changed._asdict(),
                "margin_change": found.margin_change._asdict(),
                "drift": None if found.drift is None else [layer._asdict() for layer in found.drift],
            }
            for way, found in figures.ways.items()
        },
        "tokens": None if figures.tokens is None else figures.tokens.tolist(),
    }


def _token_lines(figures: SensitivityFigures) -> Iterator[str]:
    if figures.tokens is None:
        return
    for what, place in (("Most", figures.tokens.argmax()), ("Least", figures.tokens.argmin())):
        row, column = np.unravel_index(place, figures.tokens.shape)
        yield (
            f"{what} sensitive token: row {row}, column {column}; occluded alone, it costs "
            f"{figures.tokens[row, column]:.3f} of the margin."
        )


def _right(title: str) -> Column:
    return Column(title, justify="right")


def _cell(mean: Mean, factor: int = 1) -> str:
    error = DASH if mean.standard_error is None else f"{factor * mean.standard_error:.3f}"
    return f"{factor * mean.value:.3f} ± {error}"


ANSWER = AnswerKind(figures_of, show_figures, as_json, picture_of)
