"""The pixels that columns, rows and blocks show, against a walk over the pixels, one by one."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import Ablation, WindowAblation, ablation_of
from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations.geometry import Geometry
from tests.helpers.ablations import Pixels, settings_of, shown_by_hand


def _pixels(geometry: Geometry) -> list[Pixels]:
    return [
        frozenset((int(y), int(x)) for y, x in product(np.flatnonzero(rows), np.flatnonzero(columns)))
        for rows in geometry.rows
        for columns in geometry.columns
    ]


@settings(max_examples=300)
@given(settings_of())
def test_each_ablation_shows_its_size_from_its_offset(setting: tuple[Ablation, int, int]) -> None:
    """Each ablation shows the pixels reached by walking its size from its offset, and no others."""
    geometry = Geometry.of(*setting)
    assert _pixels(geometry) == shown_by_hand(*setting)
    assert geometry.num_ablations == len(_pixels(geometry)) == geometry.grid[0] * geometry.grid[1]


@settings(max_examples=300)
@given(settings_of())
def test_an_ablation_begins_at_its_offset(setting: tuple[Ablation, int, int]) -> None:
    """Wherever it ends; along an axis that it shows whole, it begins at the edge."""
    ablation, height, width = setting

    def offsets(side: int, whole: str) -> list[int]:
        end = side if ablation.edges == "wrap" else side - ablation.size + 1
        found = list(range(0, end, ablation.stride))
        return [0] if whole == ablation.kind else [0] * len(found) if ablation.size == side else found

    tops, lefts = offsets(height, "column"), offsets(width, "row")
    assert Geometry.of(*setting).first_pixels().tolist() == [list(place) for place in product(tops, lefts)]


@settings(max_examples=100)
@given(settings_of(), st.data())
def test_masks_of_some_ablations_are_their_rows_and_columns(
    setting: tuple[Ablation, int, int], data: st.DataObject
) -> None:
    """Any ablations in any order: each mask has the pixels of its own ablation."""
    geometry, shown = Geometry.of(*setting), shown_by_hand(*setting)
    chosen = data.draw(st.lists(st.integers(0, len(shown) - 1), max_size=4))
    masks = geometry.visible(np.array(chosen, int))
    assert masks.shape == (len(chosen), *setting[1:])
    assert [frozenset(map(tuple, np.argwhere(mask).tolist())) for mask in masks] == [shown[one] for one in chosen]


@pytest.mark.parametrize(("kind", "middle"), [("column", 4), ("row", 3), ("block", 3 * 9 + 4)])
def test_the_middle_is_halfway_along_both_axes(kind: str, middle: int) -> None:
    """Of 7 vertical and 9 horizontal offsets the fourth and the fifth."""
    assert Geometry.of(ablation_of({"kind": kind, "size": 2}), 7, 9).middle == middle


@pytest.mark.parametrize(
    ("kind", "height", "width"), [("column", 9, 7), ("row", 7, 9), ("block", 9, 7), ("block", 7, 9)]
)
def test_an_ablation_larger_than_the_image_is_refused(kind: str, height: int, width: int) -> None:
    """An ablation that is larger than the image along its axis is a RequestError; as large is not."""
    Geometry.of(WindowAblation(kind=kind, size=7), height, width)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="larger than the image's 7 pixels"):
        Geometry.of(WindowAblation(kind=kind, size=8), height, width)  # type: ignore[arg-type]


@settings(max_examples=100)
@given(settings_of(), st.integers(1, 3))
def test_upsampled_ablations_show_what_their_pixels_became(setting: tuple[Ablation, int, int], times: int) -> None:
    """Each ablation keeps its place and shows the pixels that its own became."""
    shown = shown_by_hand(*setting)
    upsampled = Geometry.of(*setting).upsampled(times)
    for position, pixels in enumerate(shown):
        seen = upsampled.visible(np.array([position]))[0]
        assert {(y // times, x // times) for y, x in np.argwhere(seen)} == pixels
        assert seen.sum() == len(pixels) * times**2
    assert upsampled.num_ablations == len(shown)


@settings(max_examples=100)
@given(st.data(), st.integers(1, 4))
def test_coarser_stride_is_a_run_at_that_stride(data: st.DataObject, times: int) -> None:
    """The coarser geometry is that of a run at its stride, and the positions are those of its ablations."""
    ablation = WindowAblation(
        kind=data.draw(st.sampled_from(["column", "row", "block"])),
        size=data.draw(st.integers(1, 5)),
        stride=data.draw(st.integers(1, 3)),
        edges=data.draw(st.sampled_from(["wrap", "inside"])),
    )
    fine = Geometry.of(ablation, 9, 7)
    coarse, positions = fine.coarser(times)
    anew = Geometry.of(ablation.model_copy(update={"stride": times * ablation.stride}), 9, 7)
    assert (coarse.rows.tolist(), coarse.columns.tolist()) == (anew.rows.tolist(), anew.columns.tolist())
    shown = [np.outer(rows, columns) for rows in fine.rows for columns in fine.columns]
    for position, expected in zip(positions, (np.outer(r, c) for r in anew.rows for c in anew.columns), strict=True):
        assert (shown[position] == expected).all()
