"""What is shown of an image is true of its votes."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from smoothcert.pipeline.pages.exhibits import EXHIBIT_COLUMNS, exhibits_of
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import open_run


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
