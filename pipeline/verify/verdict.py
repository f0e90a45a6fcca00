"""What `smoothcert verify` prints: which run it is and what its rows amount to, then the verdict in one line; or JSON.

Not covered: what is wrong (check.py), what the rows amount to (figures.py).
"""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from smoothcert.pipeline.console.looks import DASH, checkpoint, facts, number_of, percent
from smoothcert.pipeline.verify.check import Report


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
    """One line. It says "all right" only about complete runs."""
    looked = f"{number_of(report.rows, 'row')} in {number_of(report.files, 'file')}: "
    wrong = number_of(len(report.wrong), "problem") if report.wrong else ""
    partial = f"PARTIAL (only the first {report.limit:,} images)" if report.limit is not None else ""
    if report.complete:
        return looked + ", ".join(filter(None, [wrong or "all right", partial]))
    found = wrong or "no problem in what is there"
    remedy = "" if allow_incomplete else "; run the job's command again to finish it, or allow this: --allow-incomplete"
    return looked + ", ".join(filter(None, ["UNFINISHED", partial, found])) + remedy


def as_json(report: Report) -> dict[str, Any]:
    """The report as `--json` prints it; each finding is a line of `problems`."""
    fields = asdict(report) | {"findings": list(report.problems)}
    return {"problems" if name == "findings" else name: value for name, value in fields.items()}
