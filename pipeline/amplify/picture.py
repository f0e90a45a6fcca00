"""The picture of a study of amplification: values by depth, with a band."""

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smoothcert.pipeline.amplify.figures import AmplificationFigures
from smoothcert.pipeline.pages.plotting import BLUE, STYLE, png_of


def picture_of(figures: AmplificationFigures, title: str) -> bytes:
    """A PNG.

    Args:
        figures: of at least one image.
        title: above the plot.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        blocks = range(1, len(figures.blocks) + 1)
        low, high = zip(*(block.band for block in figures.blocks), strict=True)
        axes.fill_between(blocks, low, high, color=BLUE, alpha=0.2, label="nine in ten images")
        axes.plot(blocks, [block.mean.value for block in figures.blocks], color=BLUE, marker="o", label="mean")
        what = (
            "largest singular value"
            if all(block.exact for block in figures.blocks)
            else "largest singular value, at least"
        )
        axes.set(title=title, xlabel="block", ylabel=what, yscale="log" if min(low) > 0 else "linear")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.2)
        axes.legend()
        return png_of(figure)
