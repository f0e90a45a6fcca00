"""The figures of a run that tables of the documentation show, in per cent of its images.

Certified means certified and right. Not covered: which tables there are (tables.py).
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

import smoothcert
from scripts.docs.tables import Row, Table
from smoothcert.manifests.ablation import MaskAblation

_NOTABLE_GAIN = 0.01  # share of all images; a gain of the exact rule of this much is bold
_HASH_DIGITS = 12

Votes = np.ndarray[Any, np.dtype[np.int64]]


class MissingRunError(Exception):
    """A run that a table needs is not there, or not finished."""


class Figures(NamedTuple):
    """Cells of one row by column, and what the table says of its run."""

    cells: dict[str, str]
    run: str
    checkpoint: str
    images: int


def figures_of(table: Table, row: Row, runs: Path) -> Figures:
    """What a row shows.

    Args:
        table: that has the row.
        row: the row.
        runs: folder of runs.
    Raises:
        MissingRunError: the row's run is not in `runs`, or not finished.
    """
    run = _open(runs, row.run)
    if isinstance(run.job.ablation, MaskAblation):
        return _of_masks(run, table, row)
    rules = ["exact", "margin"] if table.both_rules else ["exact"]
    answers = smoothcert.query(run, patches=table.sides, strides=[row.stride], rules=rules)
    if not answers.complete:
        raise MissingRunError(f"run {row.run} in {runs} is not finished")
    counts = {
        (result.question.patch[0], result.question.claim.rule): result.classes[None] for result in answers.results
    }
    first = counts[table.sides[0], "exact"]
    cells = dict(row.labels) | {"smoothed": _percent(first.correct / first.images, table.decimals)}
    for side in table.sides:
        shares = [counts[side, rule].certified_correct / first.images for rule in rules]
        cells[f"{side} x {side}"] = _by_rule(shares, table.decimals)
    if "on ablations" in table.columns:
        cells["on ablations"] = _percent(_right_votes(runs / row.run, run.job.ablation, row.stride), table.decimals)
    if "votes that differ" in table.columns:
        cells["votes that differ"] = str(_different_votes(runs, table.rows[0].run, row.run))
    return Figures(cells, row.run, run.checkpoint_sha256[:_HASH_DIGITS], first.images)


def _of_masks(run: Any, table: Table, row: Row) -> Figures:
    """Shares of all images, against the threat that the masks were made for."""
    asked = [smoothcert.query(run, rules=["exact", "published"]), smoothcert.query(run, certificate="detection")]
    if not asked[0].complete:
        raise MissingRunError(f"run {row.run} is not finished")
    recovery, published, detection = (result.classes[None] for answers in asked for result in answers.results)
    counts = {
        "double masking": recovery.correct,
        "recovery": recovery.certified_correct,
        "recovery, published": published.certified_correct,
        "whole image": detection.correct,
        "detection": detection.certified_correct,
        "silent": detection.silent_correct,
        "false alarms": detection.false_alarms,
    }
    cells = {name: _percent(count / recovery.images, table.decimals) for name, count in counts.items()}
    cells["votes left out"] = _percent(_left_out(run), table.decimals) if run.job.ablation.early_exit else "—"
    return Figures(dict(row.labels) | cells, row.run, run.checkpoint_sha256[:_HASH_DIGITS], recovery.images)


def _left_out(run: Any) -> float:
    """The share of votes that early exit left out."""
    votes = pq.read_table(Path(run.url) / "votes", columns=["votes"])["votes"].combine_chunks().flatten()
    return votes.null_count / len(votes)


def _open(runs: Path, run_id: str) -> Any:
    try:
        return smoothcert.open_run(str(runs / run_id))
    except smoothcert.RequestError:
        raise MissingRunError(f"run {run_id} is not in {runs}") from None


def _by_rule(shares: list[float], decimals: int) -> str:
    """The share by the exact rule, and by the margin rule if that is shown, too."""
    exact, *margin = (_percent(share, decimals) for share in shares)
    if margin and shares[0] - shares[1] >= _NOTABLE_GAIN:
        exact = f"**{exact}**"
    return " / ".join([exact, *margin])


def _right_votes(run: Path, ablation: Any, stride: int) -> float:
    """The share of votes that name the label."""
    rows = pq.read_table(run / "votes", columns=["label", "votes"]).drop_null()
    votes = _at_stride(np.stack(rows["votes"].to_numpy()), ablation, stride)
    return float((votes == rows["label"].to_numpy()[:, None]).mean())


def _at_stride(votes: Votes, ablation: Any, stride: int) -> Votes:
    """Votes [images, ablations] at a coarser stride; offsets of blocks are in row-major order."""
    step = stride // ablation.stride
    if ablation.kind != "block":
        return votes[:, ::step]
    side = math.isqrt(votes.shape[1])
    return votes.reshape(-1, side, side)[:, ::step, ::step].reshape(len(votes), -1)


def _different_votes(runs: Path, one: str, other: str) -> int:
    """How many votes of two runs of the same images differ."""
    for run in (one, other):
        _open(runs, run)
    first, second = (pq.read_table(runs / run / "votes", columns=["key", "votes"]).drop_null() for run in (one, other))
    if not first["key"].equals(second["key"]):
        raise MissingRunError(f"runs {one} and {other} in {runs} are not of the same images")
    return int((np.stack(first["votes"].to_numpy()) != np.stack(second["votes"].to_numpy())).sum())


def _percent(share: float, decimals: int) -> str:
    return f"{100 * share:.{decimals}f}"
