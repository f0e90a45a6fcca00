"""What `smoothcert amplify` prints."""

import json

from rich.console import Console

from smoothcert.pipeline.amplify.answers import as_json, show_figures
from smoothcert.pipeline.amplify.figures import figures_of
from tests.helpers.study_rows import amplification_rows


def printed(rows):
    console = Console(width=120, record=True)
    show_figures(figures_of(rows), console)
    return " ".join(console.export_text().replace("│", " ").split())


def test_the_answer_has_a_row_for_each_block():
    text = printed(amplification_rows(3))
    assert "over 3 images. Values of power iteration are lower bounds." in text
    assert "1 2.000 0.577 1.100 2.900 3.000 exact" in text
    assert "2 3.000 0.577 2.100 3.900 4.000 a lower bound" in text


def test_exact_values_are_not_called_bounds():
    text = printed(amplification_rows(1, exact=(True, True)))
    assert "bound" not in text
    assert "1 1.000 - 1.000" in text


def test_no_image():
    assert printed(amplification_rows(0)) == "No image was measured."


def test_json_holds_all_figures():
    value = json.loads(json.dumps(as_json(figures_of(amplification_rows(3, unreadable=1)))))
    assert (value["images"], value["not_measured"]) == (3, 1)
    assert value["blocks"][1]["value"] == 3
    assert set(value["blocks"][0]) == {"value", "standard_error", "band", "largest", "exact"}
