"""Attacks on two runs: both brackets, and the images that fell in one run alone."""

from pathlib import Path

import pytest

from smoothcert.pipeline.compare.attacks import Fallen, attacked_in_both
from smoothcert.pipeline.compare.comparison import compare
from smoothcert.pipeline.compare.reasons import Reason
from tests.helpers.judged_runs import image, judged_run
from tests.helpers.studies import attack
from tests.pipeline.compare.conftest import CLOSE, TwoRuns


@pytest.fixture
def attacked(tmp_path: Path) -> TwoRuns:
    """Images in another order in each run; `edited` is another image in either. Each state in either run occurs."""
    base = {"a.tar": [image(key, CLOSE) for key in "abcdefg"]}
    new = {"a.tar": [image(key, CLOSE) for key in "gfedcba"]}
    base["a.tar"].append(image("edited", CLOSE, sha256=b"1" * 32))
    new["a.tar"].append(image("edited", CLOSE, sha256=b"2" * 32))
    runs = TwoRuns(judged_run(tmp_path / "base", base), judged_run(tmp_path / "new", new, weights="1"))
    attack(runs.base, {"a": True, "b": True, "c": False, "d": False, "e": True, "edited": True})
    attack(runs.new, {"a": True, "b": False, "c": True, "d": False, "f": True, "edited": False})
    return runs


def keys(fallen: tuple[Fallen, ...]) -> list[str]:
    return [one.key for one in fallen]


def test_images_of_both_attacks_are_paired(attacked: TwoRuns) -> None:
    """By shard, key and hash; those that only one attack tried say nothing about the other run."""
    (found,) = attacked_in_both(*attacked)
    assert (found.patch, found.both) == ((2, 2), 4)
    assert found.fell_in_base == (Fallen("a.tar", "b", 0, 0, 1, 1, 2),)
    assert keys(found.fell_in_new) == ["c"]
    assert (found.base.attacked, found.base.fell, found.new.attacked, found.new.fell) == (6, 4, 6, 3)


def test_swapped_sides_give_the_mirror(attacked: TwoRuns) -> None:
    (there,), (back,) = attacked_in_both(*attacked), attacked_in_both(*reversed(attacked))
    assert (there.base, there.new, there.both) == (back.new, back.base, back.both)
    assert (there.fell_in_base, there.fell_in_new) == (back.fell_in_new, back.fell_in_base)


def test_several_attacks_count_together(attacked: TwoRuns) -> None:
    """An image that fell to any has fallen, whatever the order of the studies."""
    for seed in (1, 2):
        attack(attacked.base, {"c": seed == 1, "d": None, "g": False}, seed=seed)
    (found,) = attacked_in_both(*attacked)
    assert found.both == 4
    assert keys(found.fell_in_base) == ["b"]
    assert keys(found.fell_in_new) == []


def test_only_sizes_that_both_attacked_are_compared(attacked: TwoRuns) -> None:
    """Finished in both; the comparison has none if a run is not complete."""
    for run, patch in zip(attacked, [(1, 3), (3, 1)], strict=True):
        attack(run, {"a": True}, patch)
        attack(run, {"a": True}, (1, 1))
    attack(attacked.base, {"a": True}, (4, 4))
    attack(attacked.new, {"a": True}, (4, 4), finished=False)
    assert [one.patch for one in compare(*attacked, allow=[Reason.images]).attacked] == [(1, 1), (2, 2)]
    Path(attacked.new.url, "_SUCCESS").unlink()
    assert compare(*attacked, allow=[Reason.images, Reason.unfinished]).attacked == ()


def test_the_brackets_are_those_of_each_run(attacked: TwoRuns) -> None:
    """Over all its images, also those that only one run has."""
    (found,) = attacked_in_both(*attacked)
    assert (found.base.images, found.base.labelled) == (8, True)
    assert found.base.upper.share == pytest.approx((8 - 4 * 8 / 6) / 8)
    assert found.new.upper.share == pytest.approx((8 - 3 * 8 / 6) / 8)


def test_a_certified_image_that_fell_is_a_problem_of_its_run(tmp_path: Path) -> None:
    shards = {"a.tar": [image("a", [0] * 12)]}
    runs = judged_run(tmp_path / "base", shards), judged_run(tmp_path / "new", shards, weights="1")
    attack(runs[0], {"a": False})
    attack(runs[1], {"a": True})
    (problem,) = compare(*runs).problems
    assert problem.startswith("new: 1 certified image fell to a 2 x 2 patch (a.tar 0)")
