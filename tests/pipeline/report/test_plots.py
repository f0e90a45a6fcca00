"""Plots are SVG that a page can hold: well-formed, with ids of their own, in the page's colour."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from smoothcert.pipeline.report import plots
from smoothcert.pipeline.report.report import Report, report_of
from smoothcert.workers.runs.run import open_run

PLOTS: dict[str, Callable[[Report], str]] = {
    "curve": lambda report: plots.certified_curve(report.figures),
    "patches": lambda report: plots.patches_curve(report.sample, "share"),
    "rectangles": lambda report: plots.rectangles_map(report.sample, "share"),
    "atlas": lambda report: plots.atlas_map(report.sample),
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_svg_with_ids_of_its_own(name: str, finished: Path) -> None:
    svg = PLOTS[name](report_of(open_run(str(finished))))
    root = ET.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids
    assert all(one.startswith(f"{name}-") for one in ids)
    used = {*re.findall(r"url\(#([^)]+)\)", svg), *re.findall(r'href="#([^"]+)"', svg)}
    assert used <= set(ids)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_has_the_pages_colour_and_its_own_words(name: str, finished: Path) -> None:
    """Text is text; the same run gives the same plot."""
    report = report_of(open_run(str(finished)))
    svg = PLOTS[name](report)
    assert "currentColor" in svg
    assert "#000000" not in svg
    assert "pixels" in " ".join(ET.fromstring(svg).itertext())
    assert svg == PLOTS[name](report)


@pytest.mark.parametrize(
    ("places", "edges"),
    [((0, 1, 2, 3), (-0.5, 3.5)), ((0, 8, 16), (-4, 20)), ((0,), (-0.5, 0.5))],  # the last: a patch like the image
)
def test_a_cell_of_the_atlas_lies_around_its_place(places: tuple[int, ...], edges: tuple[float, float]) -> None:
    assert plots._edges(places) == edges
