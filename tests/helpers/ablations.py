"""Ablations and the pixels they show, walked one by one; and networks under them, painted by hand."""

from itertools import product

from hypothesis import strategies as st

from smoothcert.manifests.job import Ablation

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
