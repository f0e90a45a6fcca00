"""Plots as SVG within a page: text and axes take the page's colour, so they suit light and dark. Others as PNG files.

Not covered: what is plotted (report/plots.py, nightly/plots.py, sensitivity/picture.py, amplify/picture.py).
"""

import io
import re

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_INK = "#010203"  # becomes the page's colour of text
BLUE, ORANGE, GREEN, RED, PURPLE = "#2f7fd6", "#c2620a", "#2e8b57", "#d33f49", "#8e6ad1"  # seen on white and on black
STYLE = {
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


def axes_of(x: str, y: str) -> Axes:
    """An empty plot of shares, in per cent."""
    axes = Figure(figsize=(6.4, 4.0)).subplots()
    axes.set(xlabel=x, ylabel=y, ylim=(0, 100))
    axes.grid(alpha=0.2)
    return axes


def svg_of(axes: Axes, name: str) -> str:
    """The figure as SVG for a page; ids are made its own."""
    out = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"^.*?(?=<svg )", "", out.getvalue(), count=1, flags=re.DOTALL).replace(_INK, "currentColor")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)


def png_of(figure: Figure) -> bytes:
    """The figure as a PNG on white, without the date or the version of the library."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return out.getvalue()
