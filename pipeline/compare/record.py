"""A comparison as JSON, and its changes as a Parquet file.

Not covered: what people read (verdict.py).
"""

from typing import Any

import pyarrow.parquet as pq

from smoothcert.pipeline.compare.attacks import AttackedChange
from smoothcert.pipeline.compare.comparison import Change, Changed, Comparison
from smoothcert.pipeline.compare.gates import GateResults
from smoothcert.workers.runs.run import Run
from smoothcert.workers.storage.output_file import OutputFile

SCHEMA = 3
"""Raised when a key of the JSON changes its meaning or goes."""


def as_json(comparison: Comparison, gates: GateResults | None = None) -> dict[str, Any]:
    """One object; `gate` is null without gates. docs/compare.md lists the keys."""
    pairs = comparison.pairs
    return {
        "schema": SCHEMA,
        "base": _run(comparison.base, complete=comparison.complete[0]),
        "new": _run(comparison.new, complete=comparison.complete[1]),
        "itself": comparison.itself,
        "tolerance": comparison.tolerance,
        "allowed": {reason.value: why for reason, why in comparison.allowed.items()},
        "paired": comparison.paired,
        "only_base": len(pairs.only_base),
        "only_new": len(pairs.only_new),
        "differences": list(comparison.differences),
        **_changed("predictions_changed", comparison.predictions),
        **_changed("clean_predictions_changed", comparison.clean_predictions),
        **_changed("votes_changed", comparison.votes),
        "clean": _change(comparison.clean),
        "smoothed": _change(comparison.smoothed),
        "certified": [
            {
                "patch": change.measure.size and [*change.measure.size],
                "pixels": change.measure.described["pixels"],
                "patches": change.measure.patches,
                "certificate": change.measure.certificate,
                "rule": change.measure.rule,
                **(_change(change) or {}),
                "kept_other_class": change.kept_other_class,
            }
            for change in comparison.certified
        ],
        "classes": [
            {
                "class": change.number,
                "images": change.images,
                "lost": change.lost,
                "gained": change.gained,
                "p_adjusted": change.p_adjusted,
            }
            for change in comparison.classes
        ],
        "attacked": [_attacked(change) for change in comparison.attacked],
        "gate": None if gates is None else _gates(gates),
    }


def _run(run: Run, *, complete: bool) -> dict[str, Any]:
    return {"run_id": run.run_id, "job": run.name, "path": run.url, "complete": complete}


def _changed(name: str, changed: Changed | None) -> dict[str, int | None]:
    beyond, within = changed or (None, None)
    return {name: beyond, f"{name}_within_tolerance": within}


def _change(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "base": change.base,
        "new": change.new,
        "lost": change.lost,
        "gained": change.gained,
        "p_value": change.p_value,
        "difference": change.difference,
        "interval": list(change.interval),
        "lost_within_tolerance": change.lost_within_tolerance,
        "gained_within_tolerance": change.gained_within_tolerance,
    }


def _attacked(change: AttackedChange) -> dict[str, Any]:
    return {
        "patch": list(change.patch),
        "base": change.base.as_json(),
        "new": change.new.as_json(),
        "both": change.both,
        "fell_in_base": [one._asdict() for one in change.fell_in_base],
        "fell_in_new": [one._asdict() for one in change.fell_in_new],
    }


def _gates(gates: GateResults) -> dict[str, Any]:
    return {
        "passed": gates.passed,
        "failures": [{"text": failure.text, "images": failure.images.to_pylist()} for failure in gates.failures],
        "accepted": list(gates.accepted),
    }


def write_changes(comparison: Comparison, output: OutputFile) -> None:
    """Write a row for each image and certificate that was lost or gained, or holds for another class.

    Raises:
        RequestError: the file exists, or cannot be written.
    """
    with output.opened() as file:
        pq.write_table(comparison.pairs.changes, file, compression="zstd")


def write_text(text: str, output: OutputFile) -> None:
    """Write a text; errors as for `write_changes`."""
    with output.opened() as file:
        file.write(text.encode(errors="surrogateescape"))
