"""Touched sets against a count of pixels."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from smoothcert.pipeline.verify.frame import Frame, most_touched, touched_by


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Frames of at most 6 x 6 pixels, of all kinds and both edges."""
    side = draw(st.integers(1, 6))
    kind, edges = draw(st.sampled_from(["column", "row", "block"])), draw(st.sampled_from(["wrap", "inside"]))
    return Frame(kind, draw(st.integers(1, side)), draw(st.integers(1, side + 1)), edges, side)


def pixels_of_ablations(frame: Frame) -> list[set[tuple[int, int]]]:
    """What each ablation shows, row-major, pixel by pixel; an offset of None shows the whole side."""

    def shows(pixel: int, offset: int | None) -> bool:
        return offset is None or (pixel - offset) % frame.side < frame.size

    last = frame.side - 1 if frame.edges == "wrap" else frame.side - frame.size
    offsets = [offset for offset in range(last + 1) if offset % frame.stride == 0]
    down, across = (None,) if frame.kind == "column" else offsets, (None,) if frame.kind == "row" else offsets
    pixels = list(product(range(frame.side), repeat=2))
    return [{(i, j) for i, j in pixels if shows(i, y) and shows(j, x)} for y, x in product(down, across)]


def touched_sets(frame: Frame, patch_px: int) -> set[frozenset[int]]:
    """T at every location of the patch."""
    ablations = pixels_of_ablations(frame)
    sets = set()
    for i, j in product(range(frame.side - patch_px + 1), repeat=2):
        patch = set(product(range(i, i + patch_px), range(j, j + patch_px)))
        sets.add(frozenset(number for number, pixels in enumerate(ablations) if pixels & patch))
    return sets


@given(frames(), st.data())
def test_touched_sets_are_those_of_the_pixels(frame: Frame, data: st.DataObject) -> None:
    """A patch touches the ablations that show one of its pixels. Oracle: every pixel of every patch."""
    patch_px = data.draw(st.integers(1, frame.side))
    down, across = touched_by(frame, patch_px).down, touched_by(frame, patch_px).across
    found = {
        frozenset(y * across.shape[1] + x for y in vertical.nonzero()[0] for x in horizontal.nonzero()[0])
        for vertical, horizontal in product(down, across)
    }
    assert found == touched_sets(frame, patch_px)
    assert sorted({int(number) for number in touched_by(frame, patch_px).number.flat}) == sorted(
        {len(touched) for touched in found}
    )
    assert frame.num_ablations == len(pixels_of_ablations(frame))


@given(frames())
def test_the_most_that_a_square_touches_is_the_largest_touched_set(frame: Frame) -> None:
    """For every side; D of the margin rule."""
    most = [int(touched_by(frame, side).number.max()) for side in range(1, frame.side + 1)]
    assert most_touched(frame).tolist() == most
