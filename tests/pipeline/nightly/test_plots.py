"""Curves of nights: well-formed SVG with ids of their own, whatever the nights hold."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from smoothcert.pipeline.nightly import plots
from smoothcert.pipeline.nightly.records import ChangeRecord, CostRecord, EntryRecord
from smoothcert.workers.runs.records import CertifiedRecord, FiguresRecord

Plot = Callable[[plots.Nights, str], str]
BEGAN = datetime(2026, 11, 1, 2, tzinfo=UTC)


def night(
    number: int, verdict: str = "gates hold", *, hours: float = 24, **figures: Any
) -> tuple[datetime, EntryRecord]:
    state = "unfinished" if verdict == "unfinished" else "complete"
    certified = tuple(CertifiedRecord(patch=(side, side), exact=0.5, margin=0.5) for side in (2, 4))
    return BEGAN + number * timedelta(hours=hours), EntryRecord(
        entry="e",
        job="j",
        state=state,
        verdict=verdict,
        sentence="",
        figures=FiguresRecord(**{"clean_accuracy": 0.9, "smoothed_accuracy": 0.8, "certified": certified} | figures),
        changes=(ChangeRecord(measure="certified", patch=(2, 2), rule="exact", lost=7, gained=2),),
        cost=CostRecord(computed=3, adopted={"0" * 16: 17}, seconds=60.0),
    )


@pytest.mark.parametrize("plot", [plots.trend, plots.changes, plots.cost])
@pytest.mark.parametrize(
    "nights",
    [
        [night(0)],
        [night(0, "unfinished")],
        [night(0), night(1, "gate tripped"), night(2, "unfinished"), night(400)],
        [night(0), night(1, hours=0.001)],  # seconds apart
        [night(0, clean_accuracy=None, smoothed_accuracy=None, certified=())],
        [night(0, certified=()), night(1, "gate tripped", certified=())],
    ],
    ids=["one", "unfinished", "all kinds", "seconds apart", "no figures", "no patches"],
)
def test_a_plot_is_svg_with_ids_of_its_own(plot: Plot, nights: plots.Nights) -> None:
    root = ET.fromstring(plot(nights, "mine"))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids
    assert all(str(one).startswith("mine-") for one in ids)


def texts(svg: str) -> str:
    return " ".join(" ".join(ET.fromstring(svg).itertext()).split())


def test_the_trend_names_its_curves_and_marks_tripped_gates() -> None:
    """Unfinished runs have figures of a part of the images: they are no point of a curve."""
    good = texts(plots.trend([night(0), night(1)], "mine"))
    for label in ("clean", "smoothed", "certified 2 x 2", "certified 4 x 4"):
        assert label in good
    assert "gate tripped" not in good
    assert "gate tripped" in texts(plots.trend([night(0), night(1, "gate tripped")], "mine"))
    with_unfinished = plots.trend([night(0), night(1, "unfinished", clean_accuracy=0.1), night(2)], "mine")
    assert with_unfinished == plots.trend([night(0), night(1, "unfinished", clean_accuracy=0.3), night(2)], "mine")
    assert with_unfinished != plots.trend([night(0), night(1, clean_accuracy=0.1), night(2)], "mine")


def test_curves_take_the_colour_of_the_page() -> None:
    for plot in (plots.trend, plots.changes, plots.cost):
        svg = plot([night(0), night(1)], "mine")
        assert "currentColor" in svg
        assert "#010203" not in svg
