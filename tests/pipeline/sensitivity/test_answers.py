"""What `smoothcert sensitivity` prints."""

import json

from rich.console import Console

from smoothcert.pipeline.sensitivity.answers import as_json, show_figures
from smoothcert.pipeline.sensitivity.figures import figures_of
from tests.helpers.study_rows import sensitivity_rows


def printed(rows):
    console = Console(width=100, record=True)
    show_figures(figures_of(rows), console)
    return console.export_text()


def test_the_answer_has_a_row_for_each_way_and_each_layer():
    text = printed(sensitivity_rows(3))
    assert "Means over 3 images, with standard errors. A measurement, no certificate." in text
    for cells in ("occluded 10.000 ± 5.774 % 1.000 ± 0.577", "hidden 10.000 ± 5.774 % 3.000 ± 0.577"):
        assert cells in " ".join(text.replace("│", " ").replace("┃", " ").split())
    assert "Most sensitive token: row 1, column 1; occluded alone, it costs 4.000 of the margin." in text
    assert "Least sensitive token: row 0, column 0; occluded alone, it costs 1.000 of the margin." in text


def test_what_is_not_known_is_left_out():
    text = printed(sensitivity_rows(1, layers=0, tokens=None))
    assert "0.000 ± -" in text
    assert "layer" not in text
    assert "sensitive token" not in text


def test_no_image():
    assert printed(sensitivity_rows(0)).strip() == "No image was measured."


def test_json_holds_all_figures():
    value = json.loads(json.dumps(as_json(figures_of(sensitivity_rows(3, unreadable=1)))))
    assert (value["images"], value["not_measured"], value["tokens"]) == (3, 1, [[1, 2], [3, 4]])
    assert value["ways"]["corrupted"]["margin_change"]["value"] == 2
    assert [set(layer) for layer in value["ways"]["hidden"]["drift"]] == [{"value", "standard_error"}] * 3
    assert as_json(figures_of(sensitivity_rows(1, layers=0)))["ways"]["hidden"]["drift"] is None
