"""What is shown of an image is true of its votes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smoothcert.pipeline.pages.exhibits import EXHIBIT_COLUMNS, exhibits_of
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import open_run
from tests.helpers.masked_runs import KINDS, ByHand, masked_run, rows_of
from tests.helpers.masks import rectangle


def test_an_exhibit_says_what_happens_at_its_weakest_place(any_run: Path) -> None:
    """The votes there, all given to the class that it would become, change the prediction iff the slack is below 0."""
    run = open_run(str(any_run))
    rows = pa.concat_tables([file.rows for file in read_published(run, EXHIBIT_COLUMNS)])
    rows = rows.filter(rows["votes"].is_valid())
    crop = run.job.preprocess.crop
    ablations = ablations_of(run.job.ablation, crop, crop)
    patches = [(2, 2) if place % 2 else (1, 3) for place in range(len(rows))]
    shown = exhibits_of(rows, run, patches)
    assert [one.key for one in shown] == rows["key"].to_pylist()
    for one, (height, width) in zip(shown, patches, strict=True):
        touched = ablations.touched_at(height, width, one.top, one.left)
        after = np.bincount(np.where(touched, one.becomes, one.votes), minlength=run.job.model.classes).argmax()
        assert after == (one.becomes if one.slack < 0 else one.prediction)
        if height == width:
            assert (one.slack >= 0) == (one.largest >= 2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exhibit_of_masks_says_which_of_them_hide_its_weakest_place(tmp_path: Path, kind: str) -> None:
    """And how many of these are uniform: at no place are there fewer."""
    run = masked_run(tmp_path, KINDS[kind], count=10)
    rows = rows_of(run).table
    rows = rows.filter(rows["votes"].is_valid())
    hand = ByHand(KINDS[kind])
    there = hand.hiding(Threat(2, 2))
    for one, row in zip(exhibits_of(rows, run, [(2, 2)] * len(rows)), rows.to_pylist(), strict=True):
        assert one.masks is not None
        votes = row["votes"]
        even = {place: hand.uniform(row) & {*hide} for place, hide in there.items()}
        hide, uniform_here = there[((one.top, one.left),)], even[((one.top, one.left),)]
        assert (one.masks.hiding, one.masks.uniform) == (len(hide), len(uniform_here))
        assert one.slack == min(map(len, even.values())) - 1 == one.masks.uniform - 1
        boxes = {rectangle(*box): is_uniform for box, is_uniform in one.masks.boxes}
        assert boxes == {hand.masks.hidden[mask]: mask in uniform_here for mask in hide if mask < len(hand.masks.base)}
        others = [vote for vote in votes if vote != one.prediction]
        assert one.masks.differing == len(others)
        assert one.becomes == (max(sorted(set(others)), key=others.count) if others else None)
        assert one.grid is not None
        assert one.grid.tolist() == hand.unions
