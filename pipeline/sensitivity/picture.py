"""The picture of a study of sensitivity: predictions that change, a heat map of the tokens, and drift by layer."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smoothcert.pipeline.pages.plotting import BLUE, GREEN, ORANGE, STYLE, png_of
from smoothcert.pipeline.sensitivity.figures import SensitivityFigures

_COLOURS = {"occluded": ORANGE, "corrupted": BLUE, "hidden": GREEN}


def picture_of(figures: SensitivityFigures, title: str) -> bytes:
    """A PNG.

    Args:
        figures: of at least one image.
        title: above the panels.
    """
    panels = [_changes]
    panels += [_tokens] if figures.tokens is not None else []
    panels += [_drift] if all(way.drift is not None for way in figures.ways.values()) else []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
        figure.suptitle(title)
        for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            draw(axes, figures)
        return png_of(figure)


def _changes(axes: Axes, figures: SensitivityFigures) -> None:
    for position, (way, found) in enumerate(figures.ways.items()):
        error = 100 * (found.changed.standard_error or 0)
        axes.bar(position, 100 * found.changed.value, yerr=error, color=_COLOURS[way], ecolor="black", capsize=3)
    axes.set_xticks(range(len(figures.ways)), list(figures.ways))
    axes.set(ylabel="predictions that change, % of draws")


def _tokens(axes: Axes, figures: SensitivityFigures) -> None:
    assert figures.tokens is not None
    image = axes.imshow(figures.tokens, cmap="cividis")
    axes.set(xlabel="column of the token", ylabel="row of the token")
    axes.figure.colorbar(image, ax=axes, label="loss of margin if this token alone is occluded")


def _drift(axes: Axes, figures: SensitivityFigures) -> None:
    for way, found in figures.ways.items():
        assert found.drift is not None
        layers = range(1, len(found.drift) + 1)
        errors = [layer.standard_error or 0 for layer in found.drift]
        axes.errorbar(
            layers,
            [layer.value for layer in found.drift],
            errors,
            color=_COLOURS[way],
            marker="o",
            capsize=3,
            label=way,
        )
    axes.set(xlabel="layer", ylabel="drift of attention (total variation)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
