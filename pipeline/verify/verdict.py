"""What `smoothcert verify` prints: which run it is and what its rows amount to, then the verdict in one line; or JSON.

Not covered: what is wrong (check.py), what the rows amount to (figures.py).
"""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from smoothcert.pipeline.console.looks import DASH, checkpoint, facts, number_of, percent
from smoothcert.pipeline.verify.check import Report

if TYPE_CHECKING:
    from smoothcert.pipeline.verify.evidence import Evidence


def report_table(report: Report) -> Table:
    """The run, and the figures that verify counted itself."""
    figures = report.figures
    errors = sum(count for status, count in figures.status.items() if status != "ok")
    model = checkpoint(report.checkpoint or DASH, report.checkpoint_sha256 or DASH)
    table = facts(f"{report.job or DASH}, run {report.run_id}, model {model}", columns=2)
    for name, value in (
        ("state", _state(report) + (" PARTIAL" if report.partial else "")),
        ("shards", f"{report.files:,} of {report.shards:,}"),
        ("images", f"{report.rows:,}"),
        ("errors", f"{errors:,}"),
        ("labels", "no" if figures.labels is None else f"{figures.labels:,}"),
        ("clean accuracy", percent(figures.clean_accuracy)),
        ("smoothed accuracy", percent(figures.smoothed_accuracy)),
    ):
        table.add_row(name, value, "")
    if figures.certified:
        table.add_section()
        table.add_row("certified share" if figures.labels is None else "certified accuracy", "exact", "margin rule")
    for entry in figures.certified:
        height, width = entry["patch"]
        table.add_row(f"  patch {height} x {width}", percent(entry["exact"]), percent(entry["margin"]))
    return table


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


def as_json(report: Report) -> dict[str, Any]:
    """The report as `--json` prints it; each finding is a line of `problems`."""
    fields = asdict(report) | {"findings": list(report.problems)}
    return {"problems" if name == "findings" else name: value for name, value in fields.items()}
