"""Curves and maps of a report.

Not covered: what is plotted (figures.py, sample.py); strips of votes (page.py); the look (pages/plotting.py).
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoothcert.pipeline.bracket import Bracket
from smoothcert.pipeline.pages.plotting import BLUE, GREEN, ORANGE, PURPLE, RED, STYLE, axes_of, svg_of
from smoothcert.pipeline.report.figures import Figures, Share
from smoothcert.pipeline.report.sample import SampleFigures


def certified_curve(figures: Figures, brackets: Sequence[Bracket] = ()) -> str:
    """Certified share against the side of a square patch: by both rules, detection by masks, and the bounds by attacks
    and by smoothed accuracy."""
    looks = ((BLUE, "-"), (ORANGE, "--"))
    rules = zip(figures.certified.items(), looks, strict=True)
    curves = [(f"{rule} rule", shares, *look) for (rule, shares), look in rules]
    if figures.detection is not None:
        curves.append(("detection, exact rule", figures.detection.certified, PURPLE, "-."))
    with mpl.rc_context(STYLE):
        axes = axes_of("side of the patch, pixels", _what(figures))
        for label, shares, colour, style in curves:
            sides = range(1, len(shares) + 1)
            low, high = zip(*(share.interval for share in shares), strict=True)
            axes.plot(sides, [100 * share.value for share in shares], color=colour, linestyle=style, label=label)
            axes.fill_between(sides, [100 * one for one in low], [100 * one for one in high], color=colour, alpha=0.2)
        if figures.smoothed is not None:
            axes.axhline(100 * figures.smoothed.value, color=GREEN, linestyle=":", label=_accuracy(figures))
        attacked = [one for one in brackets if one.attacked and one.patch[0] == one.patch[1]]
        if attacked:
            values = [100 * one.upper.share for one in attacked]
            below = [100 * (one.upper.share - one.upper.low) for one in attacked]
            above = [100 * (one.upper.high - one.upper.share) for one in attacked]
            label = f"{'accuracy' if figures.labelled else 'share that stays'} under attack"
            places = [one.patch[0] for one in attacked]
            axes.errorbar(places, values, (below, above), fmt="D", color=RED, markersize=4, capsize=4, label=label)
        axes.legend()
        return svg_of(axes, "curve")


def patches_curve(sample: SampleFigures, what: str) -> str:
    """Certified share of the sample against one patch, and against two at once."""
    with mpl.rc_context(STYLE):
        axes = axes_of("side of each patch, pixels", what)
        bound = " (at least)" if sample.two_is_bound else ""
        series: Sequence[tuple[str, Sequence[Share], str]] = (
            ("one patch", sample.one, BLUE),
            (f"two patches{bound}", sample.two, ORANGE),
        )
        for label, shares, colour in series:
            axes.plot(sample.sides, [100 * share.value for share in shares], color=colour, marker="o", label=label)
        axes.legend()
        return svg_of(axes, "patches")


def rectangles_map(sample: SampleFigures, what: str) -> str:
    """Certified share of the sample against a rectangle, by height and width."""
    with mpl.rc_context(STYLE):
        axes = Figure(figsize=(6.4, 4.8)).subplots()
        image = axes.imshow(100 * sample.rectangles, cmap="cividis", vmin=0, vmax=100, origin="lower")
        for ticks, labels in ((axes.set_xticks, sample.widths), (axes.set_yticks, sample.heights)):
            ticks(range(len(labels)), [str(label) for label in labels])
        axes.set(xlabel="width of the patch, pixels", ylabel="height of the patch, pixels")
        for row, shares in enumerate(sample.rectangles):
            for column, share in enumerate(shares):
                if np.isnan(share):  # nothing is known, so the cell stays blank
                    continue
                colour = "white" if share < 0.5 else "black"
                axes.text(column, row, f"{100 * share:.0f}", color=colour, ha="center", va="center", fontsize=9)
        _bar(axes, image, what)
        return svg_of(axes, "rectangles")


def atlas_map(sample: SampleFigures, unit: str = "votes") -> str:
    """Mean slack by the place of the patch's upper left corner; `unit` is what it counts."""
    with mpl.rc_context(STYLE):
        axes = Figure(figsize=(6.4, 4.8)).subplots()
        (left, right), (top, bottom) = _edges(sample.lefts), _edges(sample.tops)
        image = axes.imshow(sample.atlas, cmap="cividis", extent=(left, right, bottom, top))
        axes.set(xlabel="left edge of the patch, pixels", ylabel="top edge of the patch, pixels")
        _bar(axes, image, f"mean slack, {unit}")
        return svg_of(axes, "atlas")


def _edges(places: Sequence[int]) -> tuple[float, float]:
    """Where a map begins and ends along one axis, if the middle of each cell is at its place."""
    half = (places[-1] - places[0]) / (len(places) - 1) / 2 if len(places) > 1 else 0.5
    return places[0] - half, places[-1] + half


def _accuracy(figures: Figures) -> str:
    return "accuracy of double masking" if figures.own_threat else "smoothed accuracy"


def _what(figures: Figures) -> str:
    return "certified accuracy, %" if figures.labelled else "certified share, %"


def _bar(axes: Axes, image: Any, label: str) -> None:
    axes.figure.colorbar(image, ax=axes, label=label)
