"""Curves of an entry over its nights.

Not covered: the page around them (page.py); the look (pages/plotting.py).
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

import matplotlib as mpl
from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smoothcert.pipeline.nightly.records import EntryRecord
from smoothcert.pipeline.nightly.sentences import main_change
from smoothcert.pipeline.pages.plotting import BLUE, GREEN, ORANGE, STYLE, svg_of

Nights = Sequence[tuple[datetime, EntryRecord]]
MAX_PATCHES = 6
"""Curves of certified accuracy."""
_STYLES = ("-", "--", "-.", ":")
_BAR_SHARE = 0.8  # of the usual time between two nights


def trend(nights: Nights, name: str) -> str:
    """Certified accuracy against each patch, smoothed and clean accuracy, of complete runs; a cross: a gate tripped.

    Args:
        nights: when each began, and what it says of the entry.
        name: of the plot, for its ids.
    """
    known = [(began, one, one.figures) for began, one in nights if one.state == "complete" and one.figures is not None]
    with mpl.rc_context(STYLE):
        axes = _axes("share of all images, %", nights)
        axes.set_ylim(0, 100)
        series: dict[str, list[tuple[datetime, float]]] = {"clean": [], "smoothed": []}
        tripped = list[tuple[datetime, float]]()
        for began, one, figures in known:
            shares = {"clean": figures.clean_accuracy, "smoothed": figures.smoothed_accuracy}
            shares |= {_patch(entry.patch): entry.exact for entry in figures.certified[:MAX_PATCHES]}
            for label, share in shares.items():
                if share is not None:
                    series.setdefault(label, []).append((began, 100 * share))
            if one.verdict == "gate tripped":
                marked = figures.certified[0].exact if figures.certified else figures.smoothed_accuracy
                tripped += [] if marked is None else [(began, 100 * marked)]
        certified = [label for label in series if label not in ("clean", "smoothed")]
        for label, points in series.items():
            if points:
                place = certified.index(label) if label in certified else 0
                colour = {"clean": ORANGE, "smoothed": GREEN}.get(label, BLUE)
                style = _STYLES[place % len(_STYLES)]
                axes.plot(
                    *zip(*points, strict=True), color=colour, linestyle=style, marker="o", markersize=3, label=label
                )
        if tripped:
            axes.plot(*zip(*tripped, strict=True), "x", color="#d03a2f", markersize=9, mew=2, label="gate tripped")
        if series["clean"] or series["smoothed"] or certified:
            _legend(axes)
        return svg_of(axes, name)


def changes(nights: Nights, name: str) -> str:
    """Images gained (up) and lost (down) since the baseline of each night; arguments as for `trend`."""
    known = [(began, change) for began, one in nights if (change := main_change(one)) is not None]
    with mpl.rc_context(STYLE):
        axes = _axes("images", nights)
        moments, width = _days([began for began, _ in known]), _width(_days([began for began, _ in nights]))
        axes.bar(moments, [change.gained for _, change in known], width, color=BLUE, label="gained")
        axes.bar(moments, [-change.lost for _, change in known], width, color=ORANGE, label="lost")
        axes.axhline(0, color="#010203", linewidth=0.8)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
        _legend(axes)
        return svg_of(axes, name)


def cost(nights: Nights, name: str) -> str:
    """Shards computed and taken over, as bars, and seconds, as a curve; arguments as for `trend`."""
    with mpl.rc_context(STYLE):
        axes = _axes("shards", nights)
        moments = _days([began for began, _ in nights])
        width = _width(moments)
        computed = [one.cost.computed for _, one in nights]
        adopted = [sum(one.cost.adopted.values()) for _, one in nights]
        axes.bar(moments, computed, width, color=BLUE, label="computed")
        axes.bar(moments, adopted, width, bottom=computed, color=BLUE, alpha=0.35, label="taken over")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        seconds = axes.twinx()
        seconds.spines["right"].set_visible(True)
        seconds.plot(moments, [one.cost.seconds for _, one in nights], color=ORANGE, marker="o", markersize=3)
        seconds.set(ylabel="seconds", ylim=(0, None))
        axes.plot([], [], color=ORANGE, marker="o", markersize=3, label="seconds (right)")
        _legend(axes)
        return svg_of(axes, name)


def _days(moments: Sequence[datetime]) -> list[float]:
    """As matplotlib counts them."""
    return [float(mdates.date2num(moment)) for moment in moments]


def _patch(patch: tuple[int, int]) -> str:
    return f"certified {patch[0]} x {patch[1]}"


def _axes(y: str, nights: Nights) -> Axes:
    """An empty plot of all nights, at least a day wide."""
    axes = Figure(figsize=(6.4, 3.4)).subplots()
    axes.set(ylabel=y)
    axes.grid(alpha=0.2)
    days = _days([began for began, _ in nights])
    margin = max(0.5, 0.03 * (max(days) - min(days)))
    axes.set_xlim(min(days) - margin, max(days) + margin)
    locator = mdates.AutoDateLocator(maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    return axes


def _legend(axes: Axes) -> None:
    """Below, where it hides no point."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)


def _width(moments: Sequence[float]) -> float:
    """Of a bar, in days; bars of nights that follow each other sooner than usual overlap."""
    ordered = sorted(set(moments))
    steps = sorted(later - earlier for earlier, later in pairwise(ordered))
    return _BAR_SHARE * (steps[len(steps) // 2] if steps else 1.0)
