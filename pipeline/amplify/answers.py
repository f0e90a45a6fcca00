"""The answer of `smoothcert amplify`: a table for people, JSON for machines."""

from typing import Any

from rich.console import Console
from rich.table import Column, Table

from smoothcert.pipeline.amplify.figures import AmplificationFigures, figures_of
from smoothcert.pipeline.amplify.picture import picture_of
from smoothcert.pipeline.console.looks import DASH, number_of, say, show
from smoothcert.pipeline.studies.whole_images import AnswerKind


def show_figures(figures: AmplificationFigures, console: Console) -> None:
    """Print the table."""
    if not figures.blocks:
        say(console, "No image was measured.")
        return
    bounds = "" if all(block.exact for block in figures.blocks) else " Values of power iteration are lower bounds."
    images = number_of(figures.images, "image")
    say(console, f"Largest singular value of each block's Jacobian, residual included, over {images}.{bounds}")
    titles = ("mean", "standard error", "5 % of images below", "95 % below", "largest", "value is")
    table = Table("block", *(Column(title, justify="right") for title in titles))
    for number, block in enumerate(figures.blocks, start=1):
        error = block.mean.standard_error
        table.add_row(
            str(number),
            f"{block.mean.value:.3f}",
            DASH if error is None else f"{error:.3f}",
            *(f"{end:.3f}" for end in (*block.band, block.largest)),
            "exact" if block.exact else "a lower bound",
        )
    show(console, table)


def as_json(figures: AmplificationFigures) -> dict[str, Any]:
    """The figures in the keys of the JSON."""
    return {
        "images": figures.images,
        "not_measured": figures.not_measured,
        "blocks": [
            block.mean._asdict() | {"band": list(block.band), "largest": block.largest, "exact": block.exact}
            for block in figures.blocks
        ],
    }


ANSWER = AnswerKind(figures_of, show_figures, as_json, picture_of)
