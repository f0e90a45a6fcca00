"""A night in words: one sentence for each entry, and the night in short.

Not covered: tables of runs and comparisons, which certify and compare print.
"""

from collections.abc import Iterator, Sequence

from smoothcert.manifests.names import listed
from smoothcert.manifests.suite import Suite
from smoothcert.pipeline.console.looks import number_of, percent
from smoothcert.pipeline.nightly.records import ChangeRecord, EntryRecord, GateRecord

_MAX_PROBLEMS = 3  # in a sentence
_MAX_IMAGES = 5
_BAD: dict[str, str] = {
    "gate tripped": "GATE TRIPPED",
    "not trusted": "NOT TRUSTED",
    "not compared": "NOT COMPARED",
    "refused": "REFUSED",
    "unfinished": "UNFINISHED",
}


def sentence_of(one: EntryRecord, suite: Suite) -> str:
    """What a night says about an entry."""
    title = _BAD.get(one.verdict, one.verdict)
    tripped = [gate for gate in one.gates if not gate.passed]
    parts = [*map(_tripped, tripped), *_first(one.problems, _MAX_PROBLEMS, "reason")]
    if one.state == "complete":
        parts += [", ".join([*_figure(one), *_since(one)]), *_stays(one, suite)]
    elif one.state == "unfinished":
        parts += ["run the same command again"]
    return f"{one.entry}: {title}: {'; '.join(part for part in [*parts, *_work(one)] if part)}"


def verdict_of(entries: Sequence[EntryRecord]) -> str:
    """The night in short: which entries did not do well."""
    lines = []
    for verdict, title in _BAD.items():
        if names := [one.entry for one in entries if one.verdict == verdict]:
            lines.append(f"{title}: {listed(names, 20)}")
    if lines:
        return "; ".join(lines)
    return "all gates hold" if any(one.verdict == "gates hold" for one in entries) else "complete; there are no gates"


def exit_code_of(entries: Sequence[EntryRecord]) -> int:
    """1 a gate tripped, or figures cannot be trusted; else 2 the request is wrong; else 3 a run did not finish."""
    verdicts = {one.verdict for one in entries}
    codes = ((1, {"gate tripped", "not trusted"}), (2, {"refused", "not compared"}), (3, {"unfinished"}))
    return next((code for code, bad in codes if verdicts & bad), 0)


def worst_of(codes: Sequence[int]) -> int:
    """The exit code of several: a gate that tripped stands above all, and that a run can be tried again below."""
    return min((code for code in codes if code), default=0)


def main_change(one: EntryRecord) -> ChangeRecord | None:
    """That against the first patch by the first rule, or that of the smoothed prediction."""
    return one.changes[0] if one.changes else None


def _first(lines: Sequence[str], most: int, what: str) -> list[str]:
    more = len(lines) - most
    return [*lines[:most], *([f"and {number_of(more, f'more {what}')}"] if more > 0 else [])]


def _tripped(gate: GateRecord) -> str:
    """A limit that does not hold, and images behind it."""
    names = [f"{image.shard}/{image.key}" for image in gate.images[:_MAX_IMAGES]]
    more = gate.images_in_all - len(names)
    behind = f"; images: {listed(names, _MAX_IMAGES)}{f' and {more:,} more' if more > 0 else ''}" if names else ""
    return f"{gate.text}{behind}"


def _figure(one: EntryRecord) -> Iterator[str]:
    """The main figure: that of the first patch, or the smoothed accuracy."""
    figures = one.figures
    if figures is None:
        return
    if figures.certified and figures.certified[0].exact is not None:
        yield f"{percent(figures.certified[0].exact)} certified against {figures.certified[0].against}"
    elif figures.smoothed_accuracy is not None:
        yield f"{percent(figures.smoothed_accuracy)} smoothed accuracy"


def _since(one: EntryRecord) -> Iterator[str]:
    """What changed since the baseline."""
    if one.baseline is not None and one.baseline == one.run_id:
        yield f"the run is the baseline {one.baseline} itself"
    elif one.becomes == "first":
        yield "the first complete run, which becomes the baseline"
    elif one.baseline is None and one.verdict != "not compared":
        yield "no baseline yet"
    elif (change := main_change(one)) is not None:
        yield f"{number_of(change.lost, 'image')} lost and {change.gained:,} gained since the baseline {one.baseline}"
        for count, where in ((one.only_baseline, "the baseline"), (one.only_new, "this run")):
            if count:
                yield f"{number_of(count, 'image')} only in {where}"
    if one.becomes == "previous":
        yield "this run becomes the baseline"


def _stays(one: EntryRecord, suite: Suite) -> Iterator[str]:
    """That a baseline which would have moved stays."""
    if one.verdict in ("gate tripped", "not trusted") and one.baseline not in (None, one.run_id):
        yield "the baseline stays" if suite.baseline == "previous" else ""


def _work(one: EntryRecord) -> Iterator[str]:
    computed, adopted = one.cost.computed, sum(one.cost.adopted.values())
    if computed:
        yield f"{number_of(computed, 'shard')} computed" + (f", {adopted:,} taken over" if adopted else "")
    elif adopted:
        yield f"{number_of(adopted, 'shard')} taken over"
    elif one.state == "complete":
        yield "nothing to compute"
