"""What a job file may say about ablations, and what it may not."""

import re
from typing import Any

import pytest

from smoothcert.manifests.ablation import (
    Area,
    MaskAblation,
    WindowAblation,
    ablation_in_words,
    ablation_of,
    lengths_of,
    threat_in_words,
)
from smoothcert.manifests.errors import RequestError

_MASK = {"kind": "mask", "threat": 4, "per_axis": 3}


@pytest.mark.parametrize(
    ("threat", "read", "written", "words"),
    [
        (32, (32, 32), 32, "32 x 32"),
        ("16x48", (16, 48), "16x48", "16 x 48"),
        ("16x16", (16, 16), 16, "16 x 16"),
        ({"pixels": 501}, Area(pixels=501), {"pixels": 501}, "rectangles of up to 501 pixels"),
    ],
)
def test_a_threat_is_a_side_a_rectangle_or_an_area(threat: Any, read: Any, written: Any, words: str) -> None:
    """Its dump reads as the same threat, so equal threats are one identity."""
    ablation = ablation_of(_MASK | {"threat": threat})
    assert isinstance(ablation, MaskAblation)
    assert ablation.threat == read
    assert ablation.threat_text == words
    assert ablation.model_dump(mode="json")["threat"] == written
    assert ablation_of(ablation.model_dump(mode="json")) == ablation


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"threat": "16 x 48"}, "ablation.threat: '16 x 48' should be a side such as 32, HEIGHTxWIDTH such as 16x48"),
        ({"threat": 0}, "ablation.threat: 0 should be a side such as 32"),
        ({"threat": {"pixels": 0}}, "ablation.threat: should be a side such as 32"),
        ({"per_axis": 1}, "ablation.per_axis: 1 would hide the whole image behind one mask; use 2 or more"),
        ({"per_axis": 4, "threat_patches": 2}, "ablation: per_axis: 4 takes too many votes against two patches"),
        ({"threat": {"pixels": 9}, "threat_patches": 2}, "ablation: threat_patches: 2 needs patches of one size"),
        ({"threat_patches": 3}, "ablation.threat_patches: 3 should be 1 or 2"),
        ({"fill": "white"}, "ablation.fill: 'white' should be 'black' or 'mean'"),
        ({"size": 4}, "ablation.size: not a key of this kind; remove it"),
        ({"kind": "column"}, "ablation.size: missing; add it"),
    ],
)
def test_a_wrong_mask_is_said_in_one_line(keys: dict[str, Any], says: str) -> None:
    """Key, value and remedy; keys of the other kinds are refused."""
    with pytest.raises(RequestError) as error:
        ablation_of(_MASK | keys)
    assert re.match(re.escape(says), str(error.value)), str(error.value)


def test_words_and_lengths() -> None:
    """For tables, and to compare with the image."""
    two = ablation_of(_MASK | {"threat": "2x5", "threat_patches": 2, "early_exit": True})
    assert ablation_in_words(two) == "masks against 2 patches of 2 x 5, 3 per axis, mean, early exit"
    column = ablation_of({"kind": "column", "size": 4})
    assert ablation_in_words(column) == "column 4 stride 1"
    area = ablation_of(_MASK | {"threat": {"pixels": 7}})
    assert lengths_of("ablation", two, column, area) == {"ablation.threat": [5], "ablation.size": [4]}
    assert [(each.fill, each.early_exit) for each in (two, column)] == [("mean", True), ("black", False)]


def test_an_ablation_in_words_says_what_is_unusual() -> None:
    """Wrapping around the edge is the usual."""
    assert ablation_in_words(WindowAblation(kind="row", size=3, stride=2)) == "row 3 stride 2"
    assert ablation_in_words(WindowAblation(kind="block", size=5, edges="inside")) == "block 5 stride 1 inside"


@pytest.mark.parametrize(
    ("patch", "patches", "words"),
    [
        ((16, 48), 1, "16 x 48"),
        ([2, 2], 2, "2 patches of 2 x 2"),  # as JSON has it
        (Area(501), 1, "rectangles of up to 501 pixels"),
    ],
)
def test_a_threat_has_the_same_words_everywhere(patch: Any, patches: int, words: str) -> None:
    """Tables, pages, errors and questions call this function."""
    assert threat_in_words(patch, patches) == words
