"""An entry of a night: its run against its baseline, what its gates say, and its pages.

A run that is its own baseline, or has none yet, is compared with itself: nothing is lost, and its gates still ask for
the shares that they want.

Not covered: the words (sentences.py); what is published when (night.py).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from smoothcert.manifests.errors import RequestError, SmoothcertError
from smoothcert.manifests.gates import Gates
from smoothcert.manifests.names import one_line, without_secrets
from smoothcert.manifests.suite import Suite
from smoothcert.pipeline.certify.outcome import Outcome
from smoothcert.pipeline.compare.comparable import IncomparableError
from smoothcert.pipeline.compare.comparison import Change, Comparison, compare
from smoothcert.pipeline.compare.gates import GateResult, GateResults, evaluate
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.pipeline.nightly.history import History
from smoothcert.pipeline.nightly.records import (
    ChangeRecord,
    CostRecord,
    EntryRecord,
    GateRecord,
    ImageRecord,
    Verdict,
)
from smoothcert.pipeline.nightly.sentences import sentence_of
from smoothcert.workers.runs.job_rules import answered_by_all, own_patches
from smoothcert.workers.runs.layout import VOTES
from smoothcert.workers.runs.records import FiguresRecord
from smoothcert.workers.runs.run import Run, open_run

MAX_IMAGES = 20
"""Images that a record names for each gate that trips."""


@dataclass
class Judge:
    """Judges the entries of one night.

    Attributes:
        suite: the suite.
        history: of its output.
        night: name of the night.
        moves_baselines: whether a run may become a baseline by itself.
        reports: path of the report of each run that has one.
        notices: what went wrong besides, a line each.
    """

    suite: Suite
    history: History
    night: str
    moves_baselines: bool
    reports: Mapping[str, str]
    notices: list[str] = field(default_factory=list)

    def judge(self, entry: str, outcome: Outcome) -> EntryRecord:
        """Compare the run, publish its pages, and say what was found."""
        run, found = outcome.run, _Found()
        if outcome.state == "complete" and run is not None:
            try:
                self._compare(entry, run, found)
            except _NotComparedError as error:
                found.problems = [one_line(error)]
        facts = {
            "entry": entry,
            "job": self.suite.jobs[entry].name,
            "run_id": None if run is None else run.run_id,
            "state": outcome.state,
            "verdict": _verdict_of(outcome, found),
            "problems": tuple(without_secrets(one_line(line)) for line in [*outcome.problems, *found.problems]),
            "partial": run is not None and run.partial,
            "figures": _figures_of(outcome),
            "cost": _cost_of(outcome),
            **found.facts,
        }
        facts["becomes"] = self._becomes(facts)
        if found.comparison is not None:
            facts |= self._pages(entry, found.comparison, found.gates)
        without_words = EntryRecord(sentence="", **facts)
        return without_words.model_copy(update={"sentence": sentence_of(without_words, self.suite)})

    def _compare(self, entry: str, run: Run, found: "_Found") -> None:
        """Compare a run with the baseline of the entry, and ask its gates."""
        accepted = _or_not_compared(lambda: self.history.baseline(self.suite.name, entry), "{}")
        base, gates = run, self.suite.gates.get(entry)
        accept = f"accept another run, such as this one: smoothcert accept {run.url}"
        if accepted is not None:
            found.facts["baseline"] = accepted.run_id
            if accepted.run_id != run.run_id:
                base = _or_not_compared(
                    lambda: open_run(f"{self.history.output}/{accepted.run_id}", self.history.storage),
                    f"the baseline {accepted.run_id} is gone or damaged ({{}}); restore it, or {accept}",
                )
        patches, allow = _patches_of(base, run, gates), [Reason(reason) for reason in self.suite.allow]
        try:
            compared = compare(base, run, patches=patches, allow=allow)
        except IncomparableError as error:
            why, names = "; ".join(error.reasons.values()), ", ".join(error.reasons)
            raise _NotComparedError(
                f"the baseline {base.run_id} cannot be compared: {why}; {accept}; or add {names} to `allow` of the "
                "suite"
            ) from None
        except SmoothcertError as error:
            raise _NotComparedError(
                f"the baseline {base.run_id} cannot be compared: {error}; restore what is damaged, or {accept}"
            ) from None
        if gates is not None:
            today = datetime.now(UTC).date()
            found.gates = _or_not_compared(lambda: evaluate(compared, gates, today), "its gates are wrong: {}")
        found.comparison = compared
        found.facts |= {
            "changes": tuple(_changes(compared)),
            "gates": tuple(map(_gate, () if found.gates is None else found.gates.results)),
            "paired": compared.paired,
            "only_baseline": len(compared.pairs.only_base),
            "only_new": len(compared.pairs.only_new),
        }

    def _becomes(self, facts: Mapping[str, Any]) -> str | None:
        """Why the run becomes the baseline by itself; None if it does not."""
        if not self.moves_baselines or facts["verdict"] not in ("gates hold", "no gates"):
            return None
        if facts.get("baseline") is None:
            return "first"
        moves = self.suite.baseline == "previous" and facts["baseline"] != facts["run_id"]
        return "previous" if moves else None

    def _pages(self, entry: str, comparison: Comparison, gates: GateResults | None) -> dict[str, str | None]:
        """Publish the pages. The report of a complete run never changes, so one of an earlier night is good."""
        run, report, made = comparison.new, self.reports.get(comparison.new.run_id), dict[str, str]()
        try:
            if report is None or self.history.store.find(f"{self.history.url}/{report}") is None:
                report = None
                made |= self._published(entry, _report_pages(run))
            if not comparison.itself:
                made |= self._published(entry, _comparison_pages(comparison, gates))
        except SmoothcertError as error:  # pages change no verdict
            self.notices.append(f"{entry}: not all pages are written: {error}")
        return {"report": made.get("report.html", report), "comparison": made.get("compare.html")}

    def _published(self, entry: str, pages: Mapping[str, str]) -> dict[str, str]:
        return self.history.publish_pages(self.night, entry, pages)


_UNKNOWN = {
    **dict.fromkeys(("baseline", "paired", "only_baseline", "only_new", "report", "comparison")),
    **dict.fromkeys(("changes", "gates"), ()),
}


@dataclass
class _Found:
    """What a comparison gives.

    Attributes:
        comparison: None if there is none.
        gates: what they say; None without gates.
        facts: fields of the record.
        problems: why there is no comparison.
    """

    comparison: Comparison | None = None
    gates: GateResults | None = None
    facts: dict[str, Any] = field(default_factory=lambda: dict(_UNKNOWN))
    problems: list[str] = field(default_factory=list)


class _NotComparedError(RequestError):
    """An entry cannot be compared with its baseline."""


def _or_not_compared(do: Callable[[], Any], says: str) -> Any:
    try:
        return do()
    except SmoothcertError as error:
        raise _NotComparedError(says.format(error)) from None


def check_reasons(suite: Suite) -> None:
    """Check `allow` of a suite.

    Raises:
        RequestError: it names no reason.
    """
    if wrong := [name for name in suite.allow if name not in [*Reason]]:
        raise RequestError(f"allow: {wrong[0]!r} is no reason; choose from {', '.join(Reason)}")


def _verdict_of(outcome: Outcome, found: _Found) -> Verdict:
    if outcome.state != "complete":
        return outcome.state
    if found.gates is not None and not found.gates.passed:
        return "gate tripped"
    if outcome.problems:
        return "not trusted"
    if found.comparison is None:
        return "not compared"
    return "no gates" if found.gates is None else "gates hold"


def _patches_of(base: Run, new: Run, gates: Gates | None) -> list[tuple[int, int]]:
    """What the new job is about, as far as both runs answer for it, and the patches that gates name."""
    own = answered_by_all(own_patches(new.job), base.job, new.job)
    named = [gate.patch for gate in (() if gates is None else gates.gates) if gate.patch is not None]
    return list(dict.fromkeys([*own, *named]))


def _changes(comparison: Comparison) -> Iterator[ChangeRecord]:
    for one in comparison.certified:
        measure = one.measure
        yield ChangeRecord(
            measure="certified",
            patch=measure.size,
            rule=measure.rule,
            certificate=measure.certificate.value,
            lost=one.lost,
            gained=one.gained,
        )
    named: Sequence[tuple[Any, Change | None]] = (("smoothed", comparison.smoothed), ("clean", comparison.clean))
    for measure, change in named:
        if change is not None:
            yield ChangeRecord(measure=measure, lost=change.lost, gained=change.gained)


def _gate(result: GateResult) -> GateRecord:
    if result.passed:
        return GateRecord(text=result.text, passed=True)
    images = tuple(ImageRecord(**image) for image in result.images.slice(0, MAX_IMAGES).to_pylist())
    return GateRecord(text=result.text, passed=False, images=images, images_in_all=len(result.images))


def _figures_of(outcome: Outcome) -> FiguresRecord | None:
    figures = outcome.figures
    if figures is None:
        return None
    return FiguresRecord(**{name: getattr(figures, name) for name in FiguresRecord.model_fields})


def _cost_of(outcome: Outcome) -> CostRecord:
    work = outcome.work
    return CostRecord(
        computed=work.computed,
        adopted=dict(work.adopted),
        images=work.images,
        seconds=work.seconds,
        turn_seconds=work.turn_seconds,
        waited_seconds=work.waited_seconds,
        bytes=_size_of(outcome.run),
    )


def _size_of(run: Run | None) -> int | None:
    try:
        return None if run is None else sum(entry.size for entry in run.store.files(f"{run.url}/{VOTES}"))
    except SmoothcertError:  # a figure that no verdict needs
        return None


def _report_pages(run: Run) -> dict[str, str]:
    from smoothcert.pipeline.report.report import report_of, texts_of

    return texts_of(report_of(run), run.class_names)


def _comparison_pages(comparison: Comparison, gates: GateResults | None) -> dict[str, str]:
    from smoothcert.pipeline.compare.page import html_of
    from smoothcert.pipeline.compare.record import as_json

    return {
        "compare.html": html_of(comparison, gates, comparison.new.class_names),
        "compare.json": json.dumps(as_json(comparison, gates)),
    }
