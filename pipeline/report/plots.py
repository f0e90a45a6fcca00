"""Curves and maps as SVG for a page: text and axes take the page's colour, so they suit light and dark.

Not covered: what is plotted (figures.py, sample.py); strips of votes (page.py).
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoothcert.pipeline.report.figures import Figures, Share
from smoothcert.pipeline.report.sample import SampleFigures

_INK = "#010203"  # becomes the page's colour of text
_BLUE, _ORANGE, _GREEN = "#2f7fd6", "#c2620a", "#2e8b57"  # seen on white and on black
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "smoothcert",
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def certified_curve(figures: Figures) -> str:
    """Certified share against the side of a square patch: by both rules, and the bound by smoothed accuracy."""
    with mpl.rc_context(_STYLE):
        axes = _axes("side of the patch, pixels", _what(figures))
        for rule, colour, style in (("exact", _BLUE, "-"), ("margin", _ORANGE, "--")):
            shares = figures.certified[rule]
            sides = range(1, len(shares) + 1)
            low, high = zip(*(share.interval for share in shares), strict=True)
            axes.plot(
                sides, [100 * share.value for share in shares], color=colour, linestyle=style, label=f"{rule} rule"
            )
            axes.fill_between(sides, [100 * one for one in low], [100 * one for one in high], color=colour, alpha=0.2)
        if figures.smoothed is not None:
            axes.axhline(100 * figures.smoothed.value, color=_GREEN, linestyle=":", label="smoothed accuracy")
        axes.legend()
        return _svg(axes, "curve")


def patches_curve(sample: SampleFigures, what: str) -> str:
    """Certified share of the sample against one patch, and against two at once."""
    with mpl.rc_context(_STYLE):
        axes = _axes("side of each patch, pixels", what)
        bound = " (at least)" if sample.two_is_bound else ""
        series: Sequence[tuple[str, Sequence[Share], str]] = (
            ("one patch", sample.one, _BLUE),
            (f"two patches{bound}", sample.two, _ORANGE),
        )
        for label, shares, colour in series:
            axes.plot(sample.sides, [100 * share.value for share in shares], color=colour, marker="o", label=label)
        axes.legend()
        return _svg(axes, "patches")


def rectangles_map(sample: SampleFigures, what: str) -> str:
    """Certified share of the sample against a rectangle, by height and width."""
    with mpl.rc_context(_STYLE):
        axes = Figure(figsize=(6.4, 4.8)).subplots()
        image = axes.imshow(100 * sample.rectangles, cmap="cividis", vmin=0, vmax=100, origin="lower")
        for ticks, labels in ((axes.set_xticks, sample.widths), (axes.set_yticks, sample.heights)):
            ticks(range(len(labels)), [str(label) for label in labels])
        axes.set(xlabel="width of the patch, pixels", ylabel="height of the patch, pixels")
        for row, shares in enumerate(sample.rectangles):
            for column, share in enumerate(shares):
                colour = "white" if share < 0.5 else "black"
                axes.text(column, row, f"{100 * share:.0f}", color=colour, ha="center", va="center", fontsize=9)
        _bar(axes, image, what)
        return _svg(axes, "rectangles")


def atlas_map(sample: SampleFigures) -> str:
    """Mean slack by the place of the patch's upper left corner."""
    with mpl.rc_context(_STYLE):
        axes = Figure(figsize=(6.4, 4.8)).subplots()
        (left, right), (top, bottom) = _edges(sample.lefts), _edges(sample.tops)
        image = axes.imshow(sample.atlas, cmap="cividis", extent=(left, right, bottom, top))
        axes.set(xlabel="left edge of the patch, pixels", ylabel="top edge of the patch, pixels")
        _bar(axes, image, "mean slack, votes")
        return _svg(axes, "atlas")


def _edges(places: Sequence[int]) -> tuple[float, float]:
    """Where a map begins and ends along one axis, if the middle of each cell is at its place."""
    half = (places[-1] - places[0]) / (len(places) - 1) / 2 if len(places) > 1 else 0.5
    return places[0] - half, places[-1] + half


def _what(figures: Figures) -> str:
    return "certified accuracy, %" if figures.labelled else "certified share, %"


def _axes(x: str, y: str) -> Axes:
    axes = Figure(figsize=(6.4, 4.0)).subplots()
    axes.set(xlabel=x, ylabel=y, ylim=(0, 100))
    axes.grid(alpha=0.2)
    return axes


def _bar(axes: Axes, image: Any, label: str) -> None:
    axes.figure.colorbar(image, ax=axes, label=label)


def _svg(axes: Axes, name: str) -> str:
    """The figure as SVG for a page; ids are made its own."""
    out = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"^.*?(?=<svg )", "", out.getvalue(), count=1, flags=re.DOTALL).replace(_INK, "currentColor")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
