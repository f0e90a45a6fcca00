"""The tables of the geometry against a count of pixels, one by one."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Ablation
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.touched import Touched

Pixels = frozenset[tuple[int, int]]


@st.composite
def settings_of(draw: st.DrawFn, sides: tuple[int, ...] = tuple(range(1, 13))) -> tuple[Ablation, int, int]:
    """An ablation that fits an image, and the image's height and width."""
    height, width = draw(st.sampled_from(sides)), draw(st.sampled_from(sides))
    kind = draw(st.sampled_from(["column", "row", "block"]))
    longest = {"column": width, "row": height, "block": min(height, width)}[kind]
    ablation = Ablation(
        kind=kind,
        size=draw(st.integers(1, longest)),
        stride=draw(st.integers(1, longest + 1)),
        edges=draw(st.sampled_from(["wrap", "inside"])),
    )
    return ablation, height, width


def shown_by_hand(ablation: Ablation, height: int, width: int) -> list[Pixels]:
    """The pixels of each ablation in offset order, walked from its offset."""

    def starts(side: int) -> list[int]:
        fits = range(side) if ablation.edges == "wrap" else range(side - ablation.size + 1)
        return [start for start in fits if start % ablation.stride == 0]

    def walked(start: int, side: int) -> list[int]:
        return [(start + step) % side for step in range(ablation.size)]

    rows = [list(range(height))] if ablation.kind == "column" else [walked(start, height) for start in starts(height)]
    columns = [list(range(width))] if ablation.kind == "row" else [walked(start, width) for start in starts(width)]
    return [frozenset(product(some_rows, some_columns)) for some_rows in rows for some_columns in columns]


def touched_by_hand(shown: list[Pixels], height: int, width: int, patch: tuple[int, int]) -> set[frozenset[int]]:
    """For every place of the patch the ablations that show a pixel of it."""
    places = product(range(height - patch[0] + 1), range(width - patch[1] + 1))
    return {
        frozenset(
            position
            for position, pixels in enumerate(shown)
            if any((top + y, left + x) in pixels for y in range(patch[0]) for x in range(patch[1]))
        )
        for top, left in places
    }


def _pixels(geometry: Geometry) -> list[Pixels]:
    return [
        frozenset((int(y), int(x)) for y, x in product(np.flatnonzero(rows), np.flatnonzero(columns)))
        for rows in geometry.rows
        for columns in geometry.columns
    ]


@settings(max_examples=300, deadline=None)
@given(settings_of())
def test_pixels_shown(setting: tuple[Ablation, int, int]) -> None:
    """Each ablation shows the pixels reached by walking its size from its offset, and no others."""
    geometry = Geometry.of(*setting)
    assert _pixels(geometry) == shown_by_hand(*setting)
    assert geometry.num_ablations == len(_pixels(geometry)) == geometry.grid[0] * geometry.grid[1]


def _sets(touched: Touched) -> list[frozenset[int]]:
    return [
        frozenset(np.flatnonzero(np.outer(vertical, horizontal)).tolist())
        for vertical in touched.vertical
        for horizontal in touched.horizontal
    ]


@settings(max_examples=300, deadline=None)
@given(settings_of(tuple(range(1, 10))), st.data())
def test_touched_sets(setting: tuple[Ablation, int, int], data: st.DataObject) -> None:
    """The pairs of contacts are the sets that patches touch, pixel by pixel; D is the size of the largest.

    Without the contacts that others contain, the sets that no other contains are left, each once.
    """
    ablation, height, width = setting
    patch = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    geometry = Geometry.of(ablation, height, width)
    touched = geometry.touched(*patch)
    expected = touched_by_hand(shown_by_hand(*setting), height, width, patch)
    assert set(_sets(touched)) == expected
    assert Counter(_sets(touched.maximal())) == Counter(
        one for one in expected if not any(one < other for other in expected)
    )
    assert geometry.max_touched(*patch) == max(len(one) for one in expected)


@settings(max_examples=200, deadline=None)
@given(settings_of((2, 4, 6, 8, 12)), st.sampled_from([1, 2]), st.booleans())
def test_token_groups(setting: tuple[Ablation, int, int], token_px: int, keep_hidden: bool) -> None:
    """Every ablation is in one group, with the tokens that show a pixel (or all) and exactly its pixels in them."""
    _, height, width = setting
    groups = Geometry.of(*setting).token_groups(token_px, keep_hidden=keep_hidden)
    shown = shown_by_hand(*setting)
    across = width // token_px
    assert sorted(np.concatenate([group.ablations for group in groups])) == list(range(len(shown)))
    counts = [group.tokens.shape[1] for group in groups]
    assert len(set(counts)) == len(counts)
    for group in groups:
        for place, position in enumerate(group.ablations):
            tokens = {(y // token_px) * across + x // token_px for y, x in shown[position]}
            expected = range(across * (height // token_px)) if keep_hidden else sorted(tokens)
            assert group.tokens[place].tolist() == list(expected)
            visible = {
                (token // across * token_px + y, token % across * token_px + x)
                for token, rows, columns in zip(
                    group.tokens[place], group.rows[place], group.columns[place], strict=True
                )
                for y, x in product(np.flatnonzero(rows), np.flatnonzero(columns))
            }
            assert visible == shown[position] or (keep_hidden and visible & shown[position] == shown[position])
            if not keep_hidden:
                assert visible == shown[position]


@pytest.mark.parametrize(
    ("kind", "height", "width"), [("column", 9, 7), ("row", 7, 9), ("block", 9, 7), ("block", 7, 9)]
)
def test_ablation_larger_than_the_image_is_refused(kind: str, height: int, width: int) -> None:
    """An ablation that is larger than the image along its axis is a RequestError; as large is not."""
    Geometry.of(Ablation(kind=kind, size=7), height, width)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="larger than the image's 7 pixels"):
        Geometry.of(Ablation(kind=kind, size=8), height, width)  # type: ignore[arg-type]


@pytest.mark.parametrize("patch", [(0, 1), (1, 0), (10, 1), (1, 8), (-1, 1)])
def test_patch_that_does_not_fit_is_refused(patch: tuple[int, int]) -> None:
    """A patch without pixels, or larger than the image, is a RequestError."""
    with pytest.raises(RequestError, match="must be 1 x 1 to 9 x 7"):
        Geometry.of(Ablation(kind="column", size=2), 9, 7).touched(*patch)


def test_whole_image_is_one_ablation() -> None:
    """The geometry of the clean image has one ablation, which shows every token whole."""
    geometry = Geometry.whole(4, 6)
    (group,) = geometry.token_groups(2)
    assert geometry.num_ablations == 1
    assert group.tokens.tolist() == [list(range(6))]
    assert group.rows.all()
    assert group.columns.all()


def test_formula_for_the_touched_is_wrong() -> None:
    """On 224 pixels with b = 19, D is 6 at stride 10 and m = 32, and 18 of 60 settings differ from the formula."""
    settings = list(product(range(1, 21), (23, 32, 39)))
    touched = {
        (stride, m): Geometry.of(Ablation(kind="column", size=19, stride=stride), 224, 224).max_touched(m, m)
        for stride, m in settings
    }
    assert touched[10, 32] == 6
    assert len(settings) == 60
    assert sum(touched[stride, m] != -(-(m + 19 - 1) // stride) for stride, m in settings) == 18


@settings(max_examples=100, deadline=None)
@given(settings_of(), st.integers(1, 3))
def test_upsampled(setting: tuple[Ablation, int, int], times: int) -> None:
    """Each ablation keeps its place and shows the pixels that its own became."""
    shown = shown_by_hand(*setting)
    upsampled = Geometry.of(*setting).upsampled(times)
    for position, pixels in enumerate(shown):
        vertical, horizontal = divmod(position, upsampled.grid[1])
        seen = upsampled.rows[vertical][:, None] & upsampled.columns[horizontal]
        assert {(y // times, x // times) for y, x in np.argwhere(seen)} == pixels
        assert seen.sum() == len(pixels) * times**2
    assert upsampled.num_ablations == len(shown)
