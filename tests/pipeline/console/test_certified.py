"""Rows about certificates: by patch and rule, or of masks by certificate and rule."""

from typing import Any

import pytest

from smoothcert.pipeline.console.certified import certified_rows


def test_squares_have_a_row_each() -> None:
    """Under one heading; a share that does not exist is a dash."""
    entries = [{"patch": [1, 1], "exact": 0.5, "margin": 0.25}, {"patch": [2, 2], "exact": None, "margin": None}]
    assert certified_rows(entries, labelled=True) == [
        ("certified accuracy", "exact", "margin rule"),
        ("  patch 1 x 1", "50.00 %", "25.00 %"),
        ("  patch 2 x 2", "-", "-"),
    ]
    assert certified_rows([], labelled=True) == []


@pytest.mark.parametrize(
    ("threat", "words"),
    [
        ({"patch": [2, 5], "pixels": None, "patches": 1}, "2 x 5"),
        ({"patch": [2, 2], "pixels": None, "patches": 2}, "2 patches of 2 x 2"),
        ({"patch": None, "pixels": 6, "patches": 1}, "rectangles of up to 6 pixels"),
    ],
)
def test_masks_have_a_row_for_each_certificate(threat: dict[str, Any], words: str) -> None:
    """The heading names what they were made for; detection has one rule."""
    entry = threat | {"exact": 0.5, "published": 0.25, "detection": 0.125}
    assert certified_rows([entry], labelled=False) == [
        (f"certified share against {words}", "exact", "published rule"),
        ("  recovery", "50.00 %", "25.00 %"),
        ("  detection", "-", "12.50 %"),
    ]
