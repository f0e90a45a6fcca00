"""Images of two runs pair by shard, key and hash; what changed is listed image by image."""

from typing import Any

import pyarrow as pa
import pytest

from smoothcert.pipeline.compare.measures import Certified
from smoothcert.pipeline.compare.pairs import GAINED, KEPT_OTHER_CLASS, LOST, pair
from smoothcert.workers.storage.folder_store import FolderStore
from tests.pipeline.compare.conftest import TwoRuns

MEASURE = Certified((2, 2), "exact")


def names(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))


def by_key(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in table.to_pylist()}


def test_images_pair_by_shard_key_and_hash(two_runs: TwoRuns) -> None:
    """In whatever order; the others stand alone, in the run that has them."""
    pairs = pair(*two_runs, [MEASURE])
    assert names(pairs.images) == [
        *(("a.tar", key) for key in ("kept", "lost", "gained", "rounded", "other", "broken")),
        ("b.tar", "same"),
    ]
    assert names(pairs.only_base) == [("b.tar", "edited"), ("b.tar", "gone"), ("old.tar", "old")]
    assert names(pairs.only_new) == [("b.tar", "edited"), ("b.tar", "come"), ("new.tar", "new")]


def test_every_pair_is_judged_in_both_runs(two_runs: TwoRuns) -> None:
    rows = by_key(pair(*two_runs, [MEASURE]).images)
    judged = {
        key: tuple(
            row[run + name] for name in ("smoothed", "certified_2x2_exact", "error") for run in ("base_", "new_")
        )
        for key, row in rows.items()
    }
    assert judged == {
        "kept": (True, True, True, True, False, False),
        "lost": (True, True, True, False, False, False),
        "gained": (True, True, False, True, False, False),
        "rounded": (True, True, True, False, False, False),
        "other": (False, False, False, False, False, False),
        "broken": (True, False, True, False, False, True),
        "same": (True, True, True, True, False, False),
    }


def test_changed_votes_are_counted_with_their_margins(two_runs: TwoRuns) -> None:
    """The largest in either run; within the tolerance if all are below it. Without votes nothing is known."""
    rows = by_key(pair(*two_runs, [MEASURE], tolerance=0.6).images)
    columns = ("votes_changed", "votes_within_tolerance", "margin", "within_tolerance")
    assert {key: tuple(row[name] for name in columns) for key, row in rows.items()} == {
        "kept": (0, 0, None, False),
        "lost": (5, 0, 1.0, False),
        "gained": (5, 0, 1.0, False),
        "rounded": (5, 5, 0.5, True),
        "other": (12, 0, 1.0, False),
        "broken": (None, None, None, False),
        "same": (0, 0, None, False),
    }
    rows = by_key(pair(*two_runs, [MEASURE], tolerance=0.5).images)
    assert not rows["rounded"]["within_tolerance"]  # 0.5 is not below 0.5


def test_changes_say_what_was_lost_gained_or_kept_for_another_class(two_runs: TwoRuns) -> None:
    """With slack before and now, and the weakest place in the run that lacks the certificate."""
    changes = by_key(pair(*two_runs, [MEASURE]).changes)
    assert {key: row["change"] for key, row in changes.items()} == {
        "lost": LOST,
        "rounded": LOST,
        "broken": LOST,
        "gained": GAINED,
        "other": KEPT_OTHER_CLASS,
    }
    # A patch 2 wide touches 4 of 12 columns. Its votes weigh 2 where they are for class 0.
    lost = changes["lost"]
    assert (lost["base_slack"], lost["new_slack"], lost["top"], lost["left"]) == (12 - 8, 2 - 8, 0, 2)
    assert (changes["gained"]["base_slack"], changes["gained"]["new_slack"]) == (2 - 8, 12 - 8)
    assert (changes["broken"]["new_slack"], changes["broken"]["left"]) == (None, None)


def test_a_run_that_is_compared_with_itself_is_read_once(two_runs: TwoRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night in which nothing changed costs one reading."""
    read: list[str] = []
    original = FolderStore.read
    monkeypatch.setattr(FolderStore, "read", lambda store, url: read.append(url) or original(store, url))
    pairs = pair(two_runs.base, two_runs.base, [])
    votes = [url for url in read if url.endswith(".parquet")]
    assert len(votes) == len(set(votes)) == len(two_runs.base.tasks)
    assert len(pairs.images) == two_runs.base.images(["key"]).num_rows


def test_swapped_sides_give_the_mirror(two_runs: TwoRuns) -> None:
    there, back = pair(*two_runs, [MEASURE]), pair(*reversed(two_runs), [MEASURE])
    mirror = {LOST: GAINED, GAINED: LOST, KEPT_OTHER_CLASS: KEPT_OTHER_CLASS}
    expected = {key: mirror[row["change"]] for key, row in by_key(there.changes).items()}
    assert {key: row["change"] for key, row in by_key(back.changes).items()} == expected
    assert sorted(names(back.only_base)) == sorted(names(there.only_new))


@pytest.mark.parametrize("measures", [[], [MEASURE]])
def test_a_run_has_no_changes_against_itself(two_runs: TwoRuns, measures: list[Certified]) -> None:
    pairs = pair(two_runs.base, two_runs.base, measures)
    assert (len(pairs.images), len(pairs.changes), len(pairs.only_base), len(pairs.only_new)) == (10, 0, 0, 0)
    assert pairs.images["votes_changed"].to_pylist() == [0] * 10
