"""A plot within a page: SVG with ids of its own, in the colour of the page, the same for the same figures."""

import io
import re
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from smoothcert.pipeline.pages.plotting import BLUE, STYLE, axes_of, png_of, svg_of


def _plot(name: str) -> str:
    with mpl.rc_context(STYLE):
        axes = axes_of("x", "share, %")
        axes.plot([1, 2], [30, 60], color=BLUE)
        return svg_of(axes, name)


def test_two_plots_can_stand_in_one_page() -> None:
    """Each id, and each reference to one, has the name of the plot."""
    for name in ("one", "two"):
        svg = _plot(name)
        ids = {str(element.get("id")) for element in ET.fromstring(svg).iter() if element.get("id")}
        assert ids
        assert all(one.startswith(f"{name}-") for one in ids)
        assert {*re.findall(r"url\(#([^)]+)\)", svg), *re.findall(r'href="#([^"]+)"', svg)} <= ids


def test_a_plot_is_text_in_the_colour_of_the_page_without_a_date() -> None:
    svg = _plot("one")
    assert svg == _plot("one")
    assert svg.startswith("<svg ")
    assert "share, %" in " ".join(ET.fromstring(svg).itertext())
    assert "currentColor" in svg
    assert "metadata" not in svg


def test_a_png_is_on_white_without_a_date() -> None:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2, 1))
        data = png_of(figure)
    assert png_of(figure) == data
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("PNG", (300, 150))
    assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
