"""The images at either end, with their pictures."""

from pathlib import Path

import numpy as np
import pytest

from smoothcert.manifests.rules import RuleName
from smoothcert.pipeline.pages.rows import Rows
from smoothcert.pipeline.report.figures import columns_of
from smoothcert.pipeline.report.gallery import Extremes, entries_of
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import open_run
from tests.helpers.judged_runs import CLASSES, image, judged_run
from tests.helpers.masked_runs import masked_run, rows_of


def extremes_of(path: str, count: int, *, labelled: bool = True) -> Extremes:
    extremes, run = Extremes(count, labelled), open_run(path)
    for file in read_published(run, columns_of(run.job)):
        extremes.add(Rows(file.rows, run.job))
    return extremes


def test_extremes_are_right_predictions_by_certificate_and_lead(tmp_path: Path) -> None:
    """Over all files; wrong ones and those without votes are none."""
    random = np.random.default_rng(0)
    votes = np.where(random.random((60, 12)) < random.random((60, 1)), 1, random.integers(0, CLASSES, (60, 12)))
    images = [image(str(number), one.tolist(), label=1) for number, one in enumerate(votes)]
    images[7] = image("7", None)
    run = judged_run(tmp_path, {"a.tar": images[:20], "b.tar": images[20:]})
    rows = [row for file in read_published(run, columns_of(run.job)) for row in file.rows.to_pylist()]
    right = [
        (row["max_certified_patch"], row["count"] - row["runner_up_count"]) for row in rows if row["prediction"] == 1
    ]
    tables = extremes_of(run.url, 5).tables()
    for table, expected in zip(tables, (sorted(right), sorted(right, reverse=True)), strict=True):
        found = list(zip(table["max_certified_patch"].to_pylist(), table["lead"].to_pylist(), strict=True))
        assert found == expected[:5]


@pytest.mark.parametrize("labelled", [True, False])
def test_without_a_right_prediction_there_is_no_exhibit(tmp_path: Path, labelled: bool) -> None:
    """Without labels every prediction counts."""
    images = {"shards": "unused", "label": "cls" if labelled else None}
    run = judged_run(tmp_path, {"a.tar": [image("0", [1] * 12, 0 if labelled else None)]}, images=images)
    fragile, sturdy = extremes_of(run.url, 3, labelled=labelled).tables()
    assert (len(fragile), len(sturdy)) == (0 if labelled else 1, 0)
    assert len(entries_of(fragile, run, 1)) == len(fragile)


@pytest.mark.parametrize("images", [1, 2, 5, 8, 20])
def test_no_image_is_at_both_ends(tmp_path: Path, images: int) -> None:
    """A small run shows each image once."""
    shards = {"a.tar": [image(str(number), [0] * 12) for number in range(images)]}
    fragile, sturdy = extremes_of(judged_run(tmp_path, shards).url, 4).tables()
    keys = [*fragile["key"].to_pylist(), *sturdy["key"].to_pylist()]
    assert len(keys) == len(set(keys)) == min(images, 8)


def test_an_entry_is_an_image_with_its_picture(any_run: Path) -> None:
    """As the network saw it."""
    run = open_run(str(any_run))
    fragile, _ = extremes_of(run.url, 3, labelled=run.job.images.label is not None).tables()
    entries = entries_of(fragile, run, 2)
    assert [entry.exhibit.key for entry in entries] == fragile["key"].to_pylist()
    for entry in entries:
        assert entry.picture.image is not None
        assert entry.picture.image.size == (run.job.preprocess.crop, run.job.preprocess.crop)


def test_extremes_of_masks_are_by_certificate_and_agreement(tmp_path: Path) -> None:
    """The largest square by the exact rule, then how few votes differ from the prediction."""
    run = masked_run(tmp_path)
    judged = rows_of(run)
    rows = zip(judged.table.to_pylist(), judged.largest_squares[RuleName.exact].tolist(), strict=True)
    right = [
        (largest, -sum(vote != row["prediction"] for vote in row["votes"]))
        for row, largest in rows
        if row["votes"] is not None and row["prediction"] == row["label"]
    ]
    tables = extremes_of(run.url, 5).tables()
    for table, expected in zip(tables, (sorted(right), sorted(right, reverse=True)), strict=True):
        assert list(zip(table["largest"].to_pylist(), table["lead"].to_pylist(), strict=True)) == expected[:5]
    assert len(set(right)) > 5
