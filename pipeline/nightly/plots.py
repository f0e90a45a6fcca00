"""Curves of an entry over its nights, one step a night, however far apart they are.

Not covered: the page around them (page.py); the look (pages/plotting.py).
"""

from collections.abc import Sequence
from datetime import datetime

import matplotlib as mpl
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
_BAR = 0.8  # of the step between two nights
_MOST_DATES = 7


def trend(nights: Nights, name: str) -> str:
    """Certified accuracy against each patch, smoothed and clean accuracy, of complete runs; a cross: a gate tripped.

    Args:
        nights: when each began, and what it says of the entry.
        name: of the plot, for its ids.
    """
    known = [
        (place, one, one.figures)
        for place, (_, one) in enumerate(nights)
        if one.state == "complete" and one.figures is not None
    ]
    with mpl.rc_context(STYLE):
        axes = _axes("share of all images, %", nights)
        axes.set_ylim(0, 100)
        series: dict[str, list[tuple[int, float]]] = {"clean": [], "smoothed": []}
        tripped = list[tuple[int, float]]()
        for night, one, figures in known:
            shares = {"clean": figures.clean_accuracy, "smoothed": figures.smoothed_accuracy}
            shares |= {f"certified {entry.against}": entry.exact for entry in figures.certified[:MAX_PATCHES]}
            for label, share in shares.items():
                if share is not None:
                    series.setdefault(label, []).append((night, 100 * share))
            if one.verdict == "gate tripped":
                marked = figures.certified[0].exact if figures.certified else figures.smoothed_accuracy
                tripped += [] if marked is None else [(night, 100 * marked)]
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
    known = [(place, change) for place, (_, one) in enumerate(nights) if (change := main_change(one)) is not None]
    with mpl.rc_context(STYLE):
        axes = _axes("images", nights)
        places = [place for place, _ in known]
        axes.bar(places, [change.gained for _, change in known], _BAR, color=BLUE, label="gained")
        axes.bar(places, [-change.lost for _, change in known], _BAR, color=ORANGE, label="lost")
        most = max((max(change.gained, change.lost) for _, change in known), default=0)
        axes.set_ylim(-1.1 * max(1, most), 1.1 * max(1, most))
        axes.axhline(0, color="#010203", linewidth=0.8)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
        _legend(axes)
        return svg_of(axes, name)


def cost(nights: Nights, name: str) -> str:
    """Shards computed and taken over, as bars, and seconds, as a curve; arguments as for `trend`."""
    with mpl.rc_context(STYLE):
        axes = _axes("shards", nights)
        places = range(len(nights))
        computed = [one.cost.computed for _, one in nights]
        adopted = [sum(one.cost.adopted.values()) for _, one in nights]
        axes.bar(places, computed, _BAR, color=BLUE, label="computed")
        axes.bar(places, adopted, _BAR, bottom=computed, color=BLUE, alpha=0.35, label="taken over")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        seconds = axes.twinx()
        seconds.spines["right"].set_visible(True)
        seconds.plot(places, [one.cost.seconds for _, one in nights], color=ORANGE, marker="o", markersize=3)
        seconds.set(ylabel="seconds", ylim=(0, None))
        axes.plot([], [], color=ORANGE, marker="o", markersize=3, label="seconds (right)")
        _legend(axes)
        return svg_of(axes, name)


def _axes(y: str, nights: Nights) -> Axes:
    """An empty plot of all nights; some have their date below, with the hour if two nights share it."""
    axes = Figure(figsize=(6.4, 3.4)).subplots()
    axes.set(ylabel=y)
    axes.grid(alpha=0.2)
    axes.set_xlim(-1, len(nights))
    step = -(-len(nights) // _MOST_DATES)
    dates = [began.date() for began, _ in nights]
    text = "%d %b\n%Y" if len(set(dates)) == len(dates) else "%d %b\n%H:%M"
    places = range(0, len(nights), step)
    axes.set_xticks(places, [f"{nights[place][0]:{text}}" for place in places])
    return axes


def _legend(axes: Axes) -> None:
    """Below, where it hides no point."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
