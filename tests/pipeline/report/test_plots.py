"""Plots are SVG that a page can hold: well-formed, with ids of their own, in the page's colour."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from smoothcert.pipeline.bracket import Bracket
from smoothcert.pipeline.report import plots
from smoothcert.pipeline.report.report import Report, report_of
from smoothcert.workers.runs.run import open_run
from tests.helpers.masked_runs import KINDS, masked_run

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


def test_the_curve_has_a_point_with_its_interval_for_each_attacked_square(finished: Path) -> None:
    """A rectangle has no place on it; where nothing was attacked there is no bound."""
    figures = report_of(open_run(str(finished))).figures

    def bracket(patch: tuple[int, int], attacked: int) -> Bracket:
        return Bracket(patch, True, 20, 10, 4, attacked, 0, 0, (), ())

    plain = plots.certified_curve(figures)
    assert plots.certified_curve(figures, [bracket((2, 3), 1), bracket((3, 3), 0)]) == plain
    assert "under attack" not in plain
    svg = plots.certified_curve(figures, [bracket((2, 2), 3), bracket((4, 4), 3)])
    words = list(ET.fromstring(svg).itertext())
    assert "accuracy under attack" in words
    caps_and_points = [len(re.findall(f"<use [^>]*{colour}", one)) for one in (plain, svg) for colour in (plots.RED,)]
    assert caps_and_points == [0, 3 * (2 + 1)]  # two in the plot and one in the legend: a point and two ends each


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


def test_the_curve_of_masks_has_both_rules_and_detection(tmp_path: Path) -> None:
    """And the map leaves out what is unknown."""
    report = report_of(masked_run(tmp_path, KINDS["area"], count=6))
    words = set(ET.fromstring(plots.certified_curve(report.figures)).itertext())
    assert {"exact rule", "published rule", "detection, exact rule", "accuracy of double masking"} <= words
    sample = report.sample
    assert sample is not None
    numbers = [word for word in ET.fromstring(plots.rectangles_map(sample, "share")).itertext() if word.strip()]
    known = int((~np.isnan(sample.rectangles)).sum())
    shares = {f"{100 * share:.0f}" for share in sample.rectangles[~np.isnan(sample.rectangles)]}
    assert sum(word in shares for word in numbers) >= known
    assert "nan" not in numbers
