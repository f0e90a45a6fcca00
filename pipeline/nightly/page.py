"""The page of the history: what the last night says, trends and cost of each entry, and all nights.

It is made from the records alone. SVG of plots.py is the only thing that the template takes as it is.

Not covered: what pages share (pipeline/pages).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from smoothcert.pipeline.console.looks import DASH, number_of, percent, span
from smoothcert.pipeline.nightly import plots
from smoothcert.pipeline.nightly.history import in_words
from smoothcert.pipeline.nightly.records import AcceptanceRecord, ChangeRecord, EntryRecord, NightRecord
from smoothcert.pipeline.nightly.sentences import main_change, verdict_of
from smoothcert.pipeline.pages.rendering import render, short
from smoothcert.workers.runs.records import FiguresRecord

MAX_NIGHTS = 400
"""Nights that the page shows; the records have all."""
_GOOD = ("gates hold", "no gates")


def html_of(nights: Sequence[NightRecord], baselines: Sequence[AcceptanceRecord], damaged: Sequence[str] = ()) -> str:
    """The page.

    Args:
        nights: the oldest first.
        baselines: what made the present baseline of each entry.
        damaged: records that cannot be read, a line each.
    """
    shown = nights[-MAX_NIGHTS:]
    runs = {(one.suite, one.entry): one.run_id for one in baselines}
    pairs, suites = _pairs(shown), _suites(shown)
    titles = {pair: short(pair[1] if len(suites) == 1 else in_words(*pair)) for pair in pairs}
    page: dict[str, Any] = {
        "suites": [_suite(suite, [one for one in shown if one.suite == suite]) for suite in suites],
        "entries": [
            _entry(f"entry-{place}", pair, titles[pair], shown, runs.get(pair)) for place, pair in enumerate(pairs)
        ],
        "rows": [row for night in reversed(shown) for row in _rows(night, runs, titles)],
        "baselines": [_baseline(one) for one in sorted(baselines, key=lambda one: (one.suite, one.entry))],
        "damaged": list(map(short, damaged)),
        "left_out": f"The newest {len(shown):,} of {len(nights):,} nights are shown; the records have all."
        if len(shown) < len(nights)
        else "",
    }
    return render(__package__, "history.html.j2", page | {"sections": list(_sections(page))})


def _sections(page: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The sections that the page has: id and title of each."""
    yield from ((one["id"], one["title"]) for one in page["entries"])
    yield "nights", "all nights"
    if page["baselines"]:
        yield "baselines", "baselines"


def _suites(nights: Sequence[NightRecord]) -> list[str]:
    """Those of the last nights first."""
    return list(dict.fromkeys(night.suite for night in reversed(nights)))


def _pairs(nights: Sequence[NightRecord]) -> list[tuple[str, str]]:
    """Suite and entry: suites as above, entries in the order of their file."""
    return list(dict.fromkeys(
        (suite, one.entry)
        for suite in _suites(nights)
        for night in reversed(nights)
        if night.suite == suite
        for one in night.entries
    ))  # fmt: skip


def _suite(name: str, nights: Sequence[NightRecord]) -> dict[str, Any]:
    """What its last night says."""
    last = nights[-1]
    return {
        "name": short(name),
        "verdict": short(verdict_of(last.entries)),
        "bad": last.exit_code != 0,
        "when": f"night of {_when(last.began)}, exit code {last.exit_code}, {span(last.seconds)}",
        "sentences": [(one.verdict not in _GOOD, short(one.sentence)) for one in last.entries],
    }


def _entry(
    id_: str, pair: tuple[str, str], title: str, nights: Sequence[NightRecord], baseline: str | None
) -> dict[str, Any]:
    """Its plots, and their texts."""
    known = [
        (_moment(night.began), one)
        for night in nights
        if night.suite == pair[0]
        for one in night.entries
        if one.entry == pair[1]
    ]
    computed = sum(one.cost.computed for _, one in known)
    adopted = sum(sum(one.cost.adopted.values()) for _, one in known)
    seconds = sum(one.cost.seconds for _, one in known)
    measured = next((_measure(change) for _, one in reversed(known) if (change := main_change(one))), "")
    return {
        "id": id_,
        "title": title,
        "baseline": short(baseline or ""),
        "plots": [
            ("Accuracy", f"Accuracy of {title} by night. {_last(known)}", plots.trend(known, f"{id_}-trend")),
            (
                f"Lost and gained since the baseline{measured}",
                f"Images of {title} gained and lost since the baseline, by night: {_changes(known)}",
                plots.changes(known, f"{id_}-changes"),
            ),
            (
                "Cost",
                f"Cost of {title} by night: {number_of(computed, 'shard')} computed and {adopted:,} taken over in "
                f"{number_of(len(known), 'night')}, {span(seconds)}",
                plots.cost(known, f"{id_}-cost"),
            ),
        ],
    }


def _measure(change: ChangeRecord) -> str:
    if change.patch is None:
        return f": {change.measure} predictions"
    height, width = change.patch
    return f": certificates against {height} x {width} ({change.rule} rule)"


def _last(known: Sequence[tuple[datetime, EntryRecord]]) -> str:
    """The figures of the last complete run in words."""
    for _, one in reversed(known):
        if one.state == "complete" and one.figures is not None:
            shares = [("clean", one.figures.clean_accuracy), ("smoothed", one.figures.smoothed_accuracy)]
            shares += [(f"certified {patch.against}", patch.exact) for patch in one.figures.certified]
            return "Last: " + ", ".join(f"{name} {percent(share)}" for name, share in shares if share is not None)
    return "No run is complete yet."


def _changes(known: Sequence[tuple[datetime, EntryRecord]]) -> str:
    changes = [change for _, one in known if (change := main_change(one)) is not None]
    if not changes:
        return "none"
    return f"at most {max(one.gained for one in changes):,} gained and {max(one.lost for one in changes):,} lost"


def _rows(
    night: NightRecord, runs: Mapping[tuple[str, str], str], titles: Mapping[tuple[str, str], str]
) -> Iterator[dict[str, Any]]:
    """The rows of the table that are about a night."""
    for one in night.entries:
        change = main_change(one)
        pages = (("report", one.report), ("comparison", one.comparison))
        yield {
            "when": _when(night.began),
            "entry": titles[night.suite, one.entry],
            "verdict": one.verdict,
            "bad": one.verdict not in _GOOD,
            "partial": one.partial,
            "why": short("; ".join(one.problems or [gate.text for gate in one.gates if not gate.passed])),
            "is_baseline": one.run_id is not None and runs.get((night.suite, one.entry)) == one.run_id,
            "run_id": short(one.run_id or DASH),
            "cells": [
                *map(percent, _shares(one.figures)),
                *((DASH, DASH) if change is None else (f"{change.lost:,}", f"{change.gained:,}")),
                f"{one.cost.computed:,}",
                f"{sum(one.cost.adopted.values()):,}",
                span(one.cost.seconds),
            ],
            # A record is text: only a path below this page becomes a link.
            "pages": [(title, quote(path)) for title, path in pages if path is not None],
        }


def _shares(figures: FiguresRecord | None) -> list[float | None]:
    """Clean, smoothed, and certified against the first patch."""
    if figures is None:
        return [None, None, None]
    return [
        figures.clean_accuracy,
        figures.smoothed_accuracy,
        figures.certified[0].exact if figures.certified else None,
    ]


def _baseline(one: AcceptanceRecord) -> tuple[str, str]:
    how = {"accept": "accepted", "first": "the first complete run", "previous": "its gates held"}[one.by]
    return short(in_words(one.suite, one.entry)), short(f"run {one.run_id}, {how}, {one.at}")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _when(text: str) -> str:
    return f"{_moment(text):%Y-%m-%d %H:%M} UTC"
