"""A comparison for people: the verdict in a sentence, then figures and images, on a terminal or as Markdown.

Losses come first; gains stand apart.

Not covered: the figures (comparison.py), the gates (gates.py), JSON (record.py).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Column, Table

from smoothcert.manifests.ablation import Area, threat_in_words
from smoothcert.manifests.names import listed
from smoothcert.pipeline.compare.attacks import Fallen
from smoothcert.pipeline.compare.comparison import Change, Changed, Comparison, clearest_changes, several_or_area
from smoothcert.pipeline.compare.gates import GateResult, GateResults
from smoothcert.pipeline.compare.pairs import GAINED, LOST
from smoothcert.pipeline.console.looks import (
    DASH,
    cell_text,
    markdown_table,
    markdown_text,
    number_of,
    percent,
    say,
    show,
)
from smoothcert.pipeline.overview.runs_list import run_in_words
from smoothcert.pipeline.pages.class_names import name_of
from smoothcert.workers.runs.votes_table import ABSENT

MAX_IMAGES = 20
"""Images that the terminal and Markdown show."""

_TEXTS = ("measure", "shard", "key")  # columns of text

Row = dict[str, str]


def verdict_of(comparison: Comparison, gates: GateResults | None = None) -> str:
    """The first line: whether the gates hold, and what changed."""
    judged = "" if gates is None else f"{_gates_sentence(gates)}; "
    if comparison.itself:
        return f"{judged}both runs are the same folder: a run was compared with itself, so nothing can differ"
    repeat = "the runs have the same id, so one repeats the other: " if _same_id(comparison) else ""
    return judged + repeat + _what_changed(comparison)


def _same_id(comparison: Comparison) -> bool:
    return comparison.base.run_id == comparison.new.run_id


def _gates_sentence(gates: GateResults) -> str:
    failures, limits = gates.failures, number_of(len(gates.results), "limit")
    if not failures:
        return f"gates hold ({limits})"
    more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"GATES TRIPPED ({len(failures)} of {limits}): {failures[0].text}{more}"


def _what_changed(comparison: Comparison) -> str:
    if comparison.certified:
        first = comparison.certified[0]
        against = f" {first.measure.against}"
        return _lost_and_gained("certificate", against, first, comparison.paired)
    if comparison.smoothed is not None:
        return _lost_and_gained("right prediction", "", comparison.smoothed, comparison.paired)
    images = number_of(comparison.paired, "image")
    return f"{number_of(comparison.predictions.beyond, 'prediction')} changed among {images}"


def _lost_and_gained(what: str, against: str, change: Change, paired: int) -> str:
    images, before, after = number_of(paired, "image"), percent(change.base / paired), percent(change.new / paired)
    within = change.lost_within_tolerance, change.gained_within_tolerance
    if not (change.lost or change.gained or any(within)):
        return f"no {what}s{against} lost or gained among {images}: {before} before and now"
    rounding = f"; {within[0]:,} more lost and {within[1]:,} more gained within the tolerance" if any(within) else ""
    return (
        f"{number_of(change.lost, what)}{against} lost and {change.gained:,} gained among {images}: {before} before, "
        f"{after} now (p = {change.p_value:.2g}){rounding}"
    )


def show_comparison(comparison: Comparison, gates: GateResults | None, console: Console) -> None:
    """Print the verdict, the figures, and the first images."""
    say(console, verdict_of(comparison, gates))
    for failure in failures_of(comparison, gates):
        say(console, f"failed: {failure}")
    for accepted in () if gates is None else gates.accepted:
        say(console, f"accepted: {accepted}")
    say(console, "")
    for role, run in runs_of(comparison):
        say(console, f"{role}: {run}")
    _show_rows(console, measure_rows(comparison), "")
    _show_rows(console, attack_rows(comparison), "")
    for line in notices_of(comparison):
        say(console, f"notice: {line}")
    for title, rows in image_tables(comparison):
        _show_rows(console, rows, title)


def as_markdown(comparison: Comparison, gates: GateResults | None = None) -> str:
    """The same as Markdown, such as for a pull request."""
    failures = [f"- {failure}" for failure in failures_of(comparison, gates)]
    accepted = [] if gates is None else [f"- accepted: {line}" for line in gates.accepted]
    runs = [f"{role}: {run}" for role, run in runs_of(comparison)]
    parts = [
        [f"**{markdown_text(verdict_of(comparison, gates))}**"],
        [markdown_text(line) for line in [*failures, *accepted]],
        [f"- {markdown_text(line)}" for line in [*runs, *notices_of(comparison)]],
        markdown_table(measure_rows(comparison)),
        markdown_table(attack_rows(comparison)),
    ]
    for title, rows in image_tables(comparison):
        parts += [[markdown_text(title)], markdown_table(rows)]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def runs_of(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """The role of each run, and the run in words."""
    for role, run in (("base", comparison.base), ("new", comparison.new)):
        yield role, run_in_words(run)


def failures_of(comparison: Comparison, gates: GateResults | None) -> list[str]:
    """What must not be, then what tripped, and the images behind it, a line each."""
    failures = () if gates is None else gates.failures
    return [*comparison.problems, *(f"{failure.text}{_behind(failure)}" for failure in failures)]


def is_text(column: str) -> bool:
    """Whether a column of these tables holds text, not figures."""
    return column in _TEXTS


def measure_rows(comparison: Comparison) -> list[Row]:
    """A row of cells for each measure."""
    named: list[tuple[str, Change | None]] = [("clean", comparison.clean), ("smoothed", comparison.smoothed)]
    named += [(change.measure.text, change) for change in comparison.certified]
    return [
        {
            "measure": name,
            "lost": f"{change.lost:,}",
            "gained": f"{change.gained:,}",
            "base": percent(change.base / comparison.paired),
            "new": percent(change.new / comparison.paired),
            "difference": f"{100 * change.difference:+.2f}",
            "95 % interval": f"{100 * change.interval[0]:+.2f} to {100 * change.interval[1]:+.2f}",
            "p": f"{change.p_value:.2g}",
        }
        for name, change in named
        if change is not None
    ]


def attack_rows(comparison: Comparison) -> list[Row]:
    """A row of cells for each size of patch that attacks tried in both runs."""
    return [
        {
            "patch": _sides(change.patch),
            "base, certified": percent(change.base.lower),
            "base, under attack": change.base.upper_text,
            "new, certified": percent(change.new.lower),
            "new, under attack": change.new.upper_text,
        }
        for change in comparison.attacked
    ]


def notices_of(comparison: Comparison) -> Iterator[str]:
    """What else a reader must know, a line each."""
    pairs = comparison.pairs
    yield f"{number_of(comparison.paired, 'image')} compared; shares are of these, differences in percentage points"
    for role, table in (("base", pairs.only_base), ("new", pairs.only_new)):
        if len(table):
            yield f"{number_of(len(table), 'image')} only in the {role} run, such as {_some(table)}"
    if comparison.differences:
        yield f"the runs differ in {', '.join(comparison.differences)}"
    for reason, why in comparison.allowed.items():
        yield f"allowed ({reason}): {why}"
    changed = (
        ("prediction", comparison.predictions),
        ("clean prediction", comparison.clean_predictions),
        ("vote", comparison.votes),
    )
    yield "changed: " + ", ".join(_changed(name, counts) for name, counts in changed if counts is not None)
    yield from _of_certificates(comparison)
    yield from _of_attacks(comparison)
    if not pairs.labelled:
        yield "there are no labels: certified means that no patch changes the prediction, right or wrong"


def _of_certificates(comparison: Comparison) -> Iterator[str]:
    for change in comparison.certified:
        if change.kept_other_class:
            images = number_of(change.kept_other_class, "image")
            yield f"{images} {change.measure.text} in both runs, for different classes"
        if change.lost_within_tolerance or change.gained_within_tolerance:
            yield (
                f"{change.measure.text}: {change.lost_within_tolerance:,} more lost and "
                f"{change.gained_within_tolerance:,} more gained within the tolerance"
            )
    if not comparison.certified:
        yield "no certificate is compared: the jobs have no patch that both runs answer for; name one with --patch"
    compared = {(change.measure.patch, change.measure.patches) for change in comparison.certified}
    for run in {run.run_id: run for run in (comparison.base, comparison.new)}.values():
        threat = several_or_area(run.job)
        if threat is not None and threat not in compared:
            yield (
                f"certificates are compared against one patch; that of {run.run_id} against {threat_in_words(*threat)} "
                "is in its report"
            )


def _of_attacks(comparison: Comparison) -> Iterator[str]:
    for one in comparison.attacked:
        yield (
            f"{number_of(one.both, 'image')} attacked with a {_sides(one.patch)} patch in both runs: "
            f"{len(one.fell_in_new):,} fell in the new run alone, {len(one.fell_in_base):,} in the base alone"
        )
    if comparison.attacked:
        yield "shares under attack are of all images of a run; intervals (95 %) allow for images that were not attacked"


def _changed(name: str, counts: Changed) -> str:
    within = f" (and {counts.within:,} within the tolerance)" if counts.within else ""
    return f"{number_of(counts.beyond, name)}{within}"


def image_tables(comparison: Comparison) -> Iterator[tuple[str, list[Row]]]:
    """A title and rows of cells: first the images that lost a certificate, then those that gained one; then those that
    fell in one run alone."""
    left, names = MAX_IMAGES, comparison.new.class_names
    for change in (LOST, GAINED):
        for title, rows in image_table(comparison, change, left, names):
            left -= len(rows)
            yield title, rows
    yield from fallen_table(comparison, MAX_IMAGES, names)


def image_table(
    comparison: Comparison, change: str, most: int, names: Sequence[str]
) -> Iterator[tuple[str, list[Row]]]:
    """The images that lost, or gained, a certificate, if there are any: a title, and rows of cells of the first."""
    if not comparison.certified:
        return
    images = clearest_changes(comparison, change)
    shown = images.slice(0, most)
    if len(images):
        more = f" (the first {len(shown)}; --parquet writes all)" if len(shown) < len(images) else ""
        rule = comparison.certified[0].measure.rule
        title = f"{number_of(len(images), 'image')} {change} a certificate of the {rule} rule{more}"
        yield title, [_cells(one, names) for one in shown.to_pylist()]


def fallen_table(comparison: Comparison, most: int, names: Sequence[str]) -> Iterator[tuple[str, list[Row]]]:
    """The images that fell in one run alone, if there are any, those of the new run first."""
    fallen = [("new", one, change.patch) for change in comparison.attacked for one in change.fell_in_new]
    fallen += [("base", one, change.patch) for change in comparison.attacked for one in change.fell_in_base]
    shown = fallen[:most]
    if fallen:
        more = f" (the first {len(shown)}; --json has all)" if len(shown) < len(fallen) else ""
        yield (
            f"{number_of(len(fallen), 'image')} fell in one run and stood in the other{more}",
            [_fallen_cells(role, one, patch, names) for role, one, patch in shown],
        )


def _fallen_cells(role: str, one: Fallen, patch: tuple[int, int], names: Sequence[str]) -> Row:
    return {
        "shard": one.shard,
        "key": one.key,
        "label": DASH if one.label is None else name_of(one.label, names),
        "patch": _sides(patch),
        "fell in": role,
        "prediction": f"{name_of(one.prediction, names)} -> {name_of(one.becomes, names)}",
        "place": f"{one.top}, {one.left}",
    }


def _sides(patch: tuple[int, int]) -> str:
    return f"{patch[0]} x {patch[1]}"


def _cells(change: dict[str, Any], names: Sequence[str]) -> Row:
    place = DASH if change["top"] is None else f"{change['top']}, {change['left']}"
    margin = DASH if change["margin"] is None else f"{change['margin']:.3g}"
    return {
        "shard": str(change["shard"]),
        "key": str(change["key"]),
        "label": _class(change["label"], names),
        "prediction": " -> ".join(_class(change[f"{role}_prediction"], names) for role in ("base", "new")),
        "patch": _patch(change),
        "slack": f"{_number(change['base_slack'])} -> {_number(change['new_slack'])}",
        "weakest place": place,
        "margin": margin,
    }


def _patch(change: dict[str, Any]) -> str:
    one = (change["patch_height"], change["patch_width"]) if change["pixels"] is None else Area(change["pixels"])
    return threat_in_words(one, change["patches"])


def _class(number: int, names: Sequence[str]) -> str:
    return DASH if number == ABSENT else name_of(number, names)


def _number(value: object) -> str:
    return DASH if value is None else str(value)


def _some(table: pa.Table) -> str:
    first = table.slice(0, 1).to_pylist()[0]
    return listed([f"{first['shard']}: {first['key']}"])


def _behind(failure: GateResult) -> str:
    shards, keys = (failure.images[name].to_pylist() for name in ("shard", "key"))
    names = [f"{shard}: {key}" for shard, key in zip(shards, keys, strict=True)]
    return f"; behind it: {listed(names, MAX_IMAGES)}" if names else ""


def _show_rows(console: Console, rows: Sequence[Row], title: str) -> None:
    if not rows:
        return
    columns = [Column(name, justify="left" if is_text(name) else "right") for name in rows[0]]
    table = Table(*columns, title=title, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in rows:
        table.add_row(*map(cell_text, row.values()))
    show(console, table)
