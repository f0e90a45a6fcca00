"""A comparison as a page: HTML that needs no network. It says what the terminal says, and shows votes of lost images.

Not covered: the texts (verdict.py), what is shown of an image (losses.py), what pages share (pipeline/pages).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from smoothcert.pipeline.compare.comparison import ClassChange, Comparison
from smoothcert.pipeline.compare.gates import GateResults
from smoothcert.pipeline.compare.losses import Loss, losses_of
from smoothcert.pipeline.compare.pairs import GAINED, LOST
from smoothcert.pipeline.compare.verdict import (
    attack_rows,
    failures_of,
    fallen_table,
    image_table,
    is_text,
    measure_rows,
    notices_of,
    runs_of,
    verdict_of,
)
from smoothcert.pipeline.console.looks import number_of, plain
from smoothcert.pipeline.pages.class_names import name_of
from smoothcert.pipeline.pages.drawing import picture_parts, strip_parts
from smoothcert.pipeline.pages.exhibits import Exhibit, masks_in_words
from smoothcert.pipeline.pages.rendering import render, short

MAX_LOSSES = 24
"""Losses that are shown with pictures and strips."""
MAX_ROWS = 200
"""Images of a table; --parquet has all."""
MAX_CLASSES = 2000
"""Classes of the table; JSON has all."""


def html_of(comparison: Comparison, gates: GateResults | None = None, names: Sequence[str] = ()) -> str:
    """The page.

    Args:
        comparison: of two runs.
        gates: what the gates say; None without gates.
        names: of the classes.
    Raises:
        RunError: a file of a run is damaged.
    """
    losses = losses_of(comparison, MAX_LOSSES)
    page: dict[str, Any] = {
        "title": short(f"{comparison.new.name} against {comparison.base.name}"),
        "verdict": verdict_of(comparison, gates),
        "tripped": gates is not None and not gates.passed,
        "failures": failures_of(comparison, gates),
        "accepted": [] if gates is None else gates.accepted,
        "measures": _table(measure_rows(comparison)),
        "attacks": _table(attack_rows(comparison)),
        "fallen": [(title, _table(rows)) for title, rows in fallen_table(comparison, MAX_ROWS, names)],
        "losses": [_card(loss, names) for loss in losses],
        "masks": any(one is not None and one.masks for loss in losses for one in (loss.base, loss.new)),
        "tables": [
            {"id": change, "title": title, "table": _table(rows)}
            for change in (LOST, GAINED)
            for title, rows in image_table(comparison, change, MAX_ROWS, names)
        ],
        "runs": [(role, plain(text)) for role, text in runs_of(comparison)],
        "notices": list(notices_of(comparison)),
    }
    page |= _class_parts(comparison, names)
    return render(__package__, "compare.html.j2", page | {"sections": list(_sections(page))})


def _sections(page: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The sections that the page has: id and title of each."""
    yield "figures", "figures"
    if page["attacks"]["rows"]:
        yield "attack", "under attack"
    if page["losses"]:
        yield "losses", "votes of what was lost"
    yield from ((table["id"], f"images {table['id']}") for table in page["tables"])
    if page["classes"]:
        yield "classes", "classes"
    yield "runs", "the two runs"


def _table(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Titles, each with whether its column is text, and cells."""
    titles = [(name, is_text(name)) for name in rows[0]] if rows else []
    return {"titles": titles, "rows": [[short(cell) for cell in row.values()] for row in rows]}


def _class_parts(comparison: Comparison, names: Sequence[str]) -> dict[str, Any]:
    """The classes with most losses first."""
    changed = sorted(comparison.classes, key=lambda one: (one.gained - one.lost, one.p_adjusted, one.number))
    shown = changed[:MAX_CLASSES]
    left_out = f"The first {len(shown):,} of {len(changed):,} classes are shown; the JSON has all."
    titles = ("class", "images", "lost", "gained", "p, corrected")
    return {
        "class_titles": [(title, title == "class") for title in titles],
        "classes": [_class_cells(one, names) for one in shown],
        "classes_left_out": left_out if len(shown) < len(changed) else "",
        "classes_about": comparison.certified[0].measure.text if comparison.certified else "",
    }


def _class_cells(one: ClassChange, names: Sequence[str]) -> list[dict[str, Any]]:
    """The cells of a row: the value by which each is sorted, and its text."""
    cells: list[tuple[float, str]] = [
        (one.number, name_of(one.number, names)),
        *((count, f"{count:,}") for count in (one.images, one.lost, one.gained)),
        (one.p_adjusted, f"{one.p_adjusted:.2g}"),
    ]
    return [{"value": str(value), "text": text, "is_text": not place} for place, (value, text) in enumerate(cells)]


def _card(loss: Loss, names: Sequence[str]) -> dict[str, Any]:
    """An image that lost a certificate: its picture, and a strip of votes for each run."""
    base, new = loss.base, loss.new
    weakest = new or base
    # One colour means one class in both strips: what the base predicts, and what takes its place.
    other = base.becomes if new is None else new.becomes if new.prediction == base.prediction else new.prediction
    label = "" if base.label is None else f"label {name_of(base.label, names)}; "
    alt = f"the image; {label}the base predicts {name_of(base.prediction, names)}"
    masks = weakest.masks.boxes if weakest.masks else ()
    return {
        **picture_parts(loss.picture, weakest.box, alt, masks),
        "title": f"{label}certificate against {base.height} x {base.width}",
        "which": short(f"{base.shard}: {base.key}"),
        "strips": [
            ("base", _votes_in_words(base, names), strip_parts(base, base.prediction, other, names)),
            (
                ("new", f"no votes: {loss.status}", None)
                if new is None
                else ("new", _votes_in_words(new, names), strip_parts(new, base.prediction, other, names))
            ),
        ],
    }


def _votes_in_words(one: Exhibit, names: Sequence[str]) -> str:
    if one.masks is not None:
        where = f"the patch at top {one.top}, left {one.left}: {masks_in_words(one.masks)}"
        return f"{name_of(one.prediction, names)}, {'holds' if one.slack >= 0 else 'lacks a uniform mask'}; {where}"
    if one.slack >= 0:
        return f"{name_of(one.prediction, names)}, holds by {number_of(one.slack, 'vote')}"
    lacks = number_of(-one.slack, "vote")
    return f"{name_of(one.prediction, names)}, lacks {lacks}: can become {name_of(one.becomes, names)}"
