"""What `smoothcert verify` prints: which run it is and what its rows amount to, then the verdict in one line; or JSON.

Not covered: what is wrong (check.py), what the rows amount to (figures.py).
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from smoothcert.pipeline.console.certified import certified_rows
from smoothcert.pipeline.console.looks import DASH, checkpoint, facts, number_of, percent
from smoothcert.pipeline.verify.figures import Figures
from smoothcert.pipeline.verify.findings import MISSING_FILE, Finding
from smoothcert.workers.notebook import html_table

if TYPE_CHECKING:
    from smoothcert.pipeline.verify.evidence import Evidence


@dataclass(frozen=True, repr=False)
class Report:
    """Which run it is, how much of it was looked at, what is wrong with it, and what else is worth knowing.

    Attributes:
        job, checkpoint, checkpoint_sha256: None if run.json does not say it; that is a finding.
        complete: _SUCCESS and the files of all shards are there.
        shards: how many the run has.
        limit: images.limit of a PARTIAL run, else None.
        files: how many were there.
        rows: how many could be read.
        findings: what is wrong.
        notices: a line each.
        replay: what a replay proves; None without one, or if run.json is too damaged for it.
    """

    run_id: str
    job: str | None
    checkpoint: str | None
    checkpoint_sha256: str | None
    complete: bool
    partial: bool
    limit: int | None
    shards: int
    files: int
    rows: int
    figures: Figures
    findings: tuple[Finding, ...]
    notices: tuple[str, ...]
    replay: "Evidence | None"

    @property
    def problems(self) -> tuple[str, ...]:
        """The findings, a line each."""
        return tuple(finding.line for finding in self.findings)

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """The findings about what is there: an incomplete run may be allowed, a wrong one is not."""
        return tuple(finding for finding in self.findings if finding.text != MISSING_FILE)

    def __repr__(self) -> str:
        return f"<Report on run {self.run_id}: {verdict_of(self, allow_incomplete=True)}>"

    def _repr_html_(self) -> str:
        """The verdict, the problems and the figures, as a notebook shows them."""
        found = [("problem", line) for line in self.problems] + [("notice", line) for line in self.notices]
        rows = [("verdict", verdict_of(self, allow_incomplete=True)), *found, *_facts_of(self), *_certified_of(self)]
        return html_table(_title_of(self), rows)


def report_table(report: Report) -> Table:
    """The run, and the figures that verify counted itself."""
    table = facts(_title_of(report), columns=2)
    for fact in _facts_of(report):
        table.add_row(*fact)
    if certified := _certified_of(report):
        table.add_section()
    for row in certified:
        table.add_row(*row)
    return table


def _title_of(report: Report) -> str:
    model = checkpoint(report.checkpoint or DASH, report.checkpoint_sha256 or DASH)
    return f"{report.job or DASH}, run {report.run_id}, model {model}"


def _facts_of(report: Report) -> list[tuple[str, str]]:
    figures = report.figures
    errors = sum(count for status, count in figures.status.items() if status != "ok")
    return [
        ("state", _state(report) + (" PARTIAL" if report.partial else "")),
        ("shards", f"{report.files:,} of {report.shards:,}"),
        ("images", f"{report.rows:,}"),
        ("errors", f"{errors:,}"),
        ("labels", "no" if figures.labels is None else f"{figures.labels:,}"),
        ("clean accuracy", percent(figures.clean_accuracy)),
        (_accuracy_name(figures), percent(figures.smoothed_accuracy)),
    ]


def _accuracy_name(figures: Figures) -> str:
    by_masks = any("published" in entry for entry in figures.certified)
    return "accuracy of double masking" if by_masks else "smoothed accuracy"


def _certified_of(report: Report) -> list[tuple[str, str, str]]:
    return certified_rows(report.figures.certified, labelled=report.figures.labels is not None)


def _state(report: Report) -> str:
    if not report.complete:
        return "UNFINISHED"
    return f"{number_of(len(report.wrong), 'problem')} in what is there" if report.wrong else "complete"


def verdict_of(report: Report, *, allow_incomplete: bool) -> str:
    """One line. It says "all right" only about complete runs, and what a replay proves."""
    verdict = _verdict(report, allow_incomplete=allow_incomplete)
    return f"{verdict}. {_proof(report.replay)}" if report.replay else verdict


def _verdict(report: Report, *, allow_incomplete: bool) -> str:
    looked = f"{number_of(report.rows, 'row')} in {number_of(report.files, 'file')}: "
    wrong = number_of(len(report.wrong), "problem") if report.wrong else ""
    partial = f"PARTIAL (only the first {report.limit:,} images)" if report.limit is not None else ""
    if report.complete:
        return looked + ", ".join(filter(None, [wrong or "all right", partial]))
    found = wrong or "no problem in what is there"
    remedy = "" if allow_incomplete else "; run the job's command again to finish it, or allow this: --allow-incomplete"
    return looked + ", ".join(filter(None, ["UNFINISHED", partial, found])) + remedy


def _proof(replay: "Evidence") -> str:
    """What a replay proves, in words."""
    of = f"{replay.images:,} images with votes"
    if replay.one_percent is None or replay.found_one_percent is None:
        return f"Replayed {replay.replayed:,} of {replay.chosen:,} chosen images, of {of}: this proves nothing more"
    chance = math.floor(replay.found_one_percent * 10_000) / 10_000  # never 100 % if it may miss one
    proof = (
        f"Replayed {replay.replayed:,} of {of}: if {percent(replay.one_percent / replay.images)} of them "
        f"({replay.one_percent:,}) were forged, this would have found one with {percent(chance)} chance"
    )
    fewest = replay.fewest_found_95
    return proof if fewest == replay.one_percent else f"{proof}, if {fewest:,} were, with at least 95 %"


_KEYS = {"findings": "problems", "files": "published", "rows": "images"}  # as the JSON of all commands names them


def as_json(report: Report) -> dict[str, Any]:
    """The report as `--json` prints it; each finding is a line of `problems`."""
    fields = asdict(report) | {"findings": list(report.problems)}
    return {_KEYS.get(name, name): value for name, value in fields.items()}
