"""The votes of a lost image are those of its row in either run."""

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from smoothcert.pipeline.compare.comparison import Comparison, clearest_changes, compare
from smoothcert.pipeline.compare.losses import losses_of
from smoothcert.pipeline.compare.page import html_of
from smoothcert.pipeline.compare.pairs import LOST
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run, open_run
from tests.helpers.finished_runs import edit_json
from tests.pipeline.compare.conftest import CLOSE, SURE, TwoRuns
from tests.pipeline.compare.test_comparison import masks_and_columns


def votes_in(run: Run) -> dict[tuple[str, str], list[int]]:
    rows = pa.concat_tables([file.rows for file in read_published(run, ["shard", "key", "votes"])]).to_pylist()
    return {(row["shard"], row["key"]): row["votes"] for row in rows}


@pytest.fixture
def found(before_and_after: tuple[Path, Path]) -> Comparison:
    base, new = before_and_after
    return compare(open_run(str(base)), open_run(str(new)), patches=[(1, 1), (2, 2), (3, 1)])


def test_each_loss_has_the_votes_of_both_runs(found: Comparison) -> None:
    """In the order of the clearest losses, about the patch that each lost most clearly."""
    losses = losses_of(found, 100)
    rows = clearest_changes(found, LOST).to_pylist()
    assert len(losses) == len(rows) > 2
    base, new = votes_in(found.base), votes_in(found.new)
    for loss, row in zip(losses, rows, strict=True):
        assert loss.new is not None
        which = loss.base.shard, loss.base.key
        assert which == (row["shard"], row["key"]) == (loss.new.shard, loss.new.key)
        assert (loss.base.votes.tolist(), loss.new.votes.tolist()) == (base[which], new[which])
        assert (loss.base.height, loss.base.width) == (row["patch_height"], row["patch_width"])
        assert (loss.base.slack, loss.new.slack) == (row["base_slack"], row["new_slack"])
        assert loss.base.slack >= 0 > loss.new.slack or loss.new.prediction != row["label"]
        assert loss.picture.image is not None


def test_no_more_losses_than_asked_for(found: Comparison) -> None:
    everyone = losses_of(found, 100)
    assert [loss.base.key for loss in losses_of(found, 2)] == [loss.base.key for loss in everyone[:2]]


def test_nothing_lost_shows_nothing(before_and_after: tuple[Path, Path]) -> None:
    run = open_run(str(before_and_after[0]))
    assert losses_of(compare(run, run), 10) == []


def test_an_image_without_votes_is_shown_as_it_was(two_runs: TwoRuns) -> None:
    """With the status that it has now; these runs have no tars, so there is a reason in place of the picture."""
    losses = losses_of(compare(*two_runs, patches=[(2, 2)], allow=[Reason.images], tolerance=0.6), 10)
    broken, lost = sorted(losses, key=lambda loss: loss.base.key)
    assert (broken.base.key, broken.new, broken.status) == ("broken", None, "decode_error")
    assert broken.base.votes.tolist() == SURE
    assert lost.new is not None
    assert (lost.base.votes.tolist(), lost.new.votes.tolist(), lost.status) == (SURE, CLOSE, "ok")
    assert lost.picture.reason.startswith("its tar is out of reach: ")


def test_the_tars_of_either_run_will_do(before_and_after: tuple[Path, Path], tmp_path: Path) -> None:
    """The new run's are gone."""
    base, new = before_and_after
    moved = Path(shutil.copytree(new, tmp_path / "new"))

    def elsewhere(record: dict[str, list[dict[str, str]]]) -> None:
        for shard in record["shards"]:
            shard["url"] = f"/gone/{shard['name']}"

    edit_json(moved / "run.json", elsewhere)
    losses = losses_of(compare(open_run(str(base)), open_run(str(moved)), patches=[(1, 1)]), 3)
    assert len(losses) == 3
    assert all(loss.picture.image is not None for loss in losses)


def test_a_loss_of_masks_is_shown_with_both_kinds_of_votes(tmp_path: Path) -> None:
    """The page says which masks hide the patch, and by how many votes columns lack it."""
    base, new = masks_and_columns(tmp_path)
    found = compare(base, new, allow=[Reason.threat])
    losses = losses_of(found, 10)
    assert losses
    for loss in losses:
        assert loss.base.masks is not None
        assert loss.base.slack == loss.base.masks.uniform - 1 >= 0
        assert loss.new is None or loss.new.masks is None
    text = html_of(found)
    assert re.search(
        r"base: \d, holds; the patch at top \d+, left \d+: (1 mask hides it and is uniform|\d+ masks hide)", text
    )
    assert "A mask is uniform if its whole row shows one class" in text
