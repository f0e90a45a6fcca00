"""Figures of the tables are those of the rows of a run."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from scripts.docs.figures import MissingRunError, figures_of
from scripts.docs.tables import Row
from tests.helpers.finished_runs import finish
from tests.scripts.docs.small_table import small_table


def test_figures_are_those_of_the_rows(finished: Path) -> None:
    """Counted from the columns of the table of votes, for exact and margin rule."""
    table = small_table(Row({"name": "small"}, finished.name, stride=3), both_rules=True)
    figures = figures_of(table, table.rows[0], finished.parent)
    rows = pq.read_table(finished / "votes").to_pylist()
    right = [row for row in rows if row["prediction"] is not None and row["prediction"] == row["label"]]
    voted = [row for row in rows if row["votes"] is not None and row["label"] is not None]

    def share(of: list[object]) -> str:
        return f"{100 * len(of) / len(rows):.2f}"

    assert figures.images == len(rows)
    assert figures.cells["smoothed"] == share(right)
    votes_right = np.mean([[vote == row["label"] for vote in row["votes"]] for row in voted])
    assert figures.cells["on ablations"] == f"{100 * votes_right:.2f}"
    for side in (1, 2):
        exact = [row for row in right if row["max_certified_patch"] >= side]
        margin = [row for row in right if row["max_margin_certified_patch"] >= side]
        assert figures.cells[f"{side} x {side}"].replace("*", "") == f"{share(exact)} / {share(margin)}"


def test_a_coarser_stride_counts_its_own_votes(finished: Path) -> None:
    """Every second vote of a run at stride 3 is one of stride 6."""
    table = small_table(Row({"name": "coarse"}, finished.name, stride=6))
    figures = figures_of(table, table.rows[0], finished.parent)
    rows = [row for row in pq.read_table(finished / "votes").to_pylist() if row["votes"] and row["label"] is not None]
    right = np.mean([[vote == row["label"] for vote in row["votes"][::2]] for row in rows])
    assert figures.cells["on ablations"] == f"{100 * right:.2f}"


def test_figures_of_masks_are_those_of_the_rows(tmp_path: Path) -> None:
    """Recovery of the prediction, detection of the class of the whole image, and alarms without any patch."""
    run = finish(tmp_path, ablation={"kind": "mask", "threat": 4, "per_axis": 2})
    columns = ("double masking", "recovery", "recovery, published", "whole image", "false alarms")
    table = small_table(Row({"name": "masks"}, run.name), columns=columns, sides=())
    figures = figures_of(table, table.rows[0], run.parent)
    rows = pq.read_table(run / "votes").to_pylist()
    right = [row for row in rows if row["votes"] and row["prediction"] == row["label"]]
    whole = [row for row in rows if row["votes"] and row["clean_prediction"] == row["label"]]
    alarms = [row for row in rows if row["votes"] and {*row["votes"][:4]} != {row["clean_prediction"]}]

    def share(of: list[object]) -> str:
        return f"{100 * len(of) / len(rows):.2f}"

    assert figures.images == len(rows)
    assert [figures.cells[name] for name in columns] == [
        share(right),
        share([row for row in right if row["recovery_certified"]]),
        share([row for row in right if row["recovery_published"]]),
        share(whole),
        share(alarms),
    ]
    assert figures.cells["detection"] >= figures.cells["silent"]


def test_votes_that_differ_are_counted_against_the_first_row(finished: Path) -> None:
    """A run differs from itself in no vote."""
    row = Row({"name": "small"}, finished.name, stride=3)
    table = small_table(row, columns=("name", "votes that differ"))
    assert figures_of(table, row, finished.parent).cells["votes that differ"] == "0"


def test_an_unfinished_run_is_missing(run: Path) -> None:
    """Figures of some of the images are not those of the table."""
    (run / "_SUCCESS").unlink()
    row = Row({"name": "small"}, run.name, stride=3)
    with pytest.raises(MissingRunError, match="not finished"):
        figures_of(small_table(row), row, run.parent)
