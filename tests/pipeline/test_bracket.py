"""The bracket: counted again by brute force, and what it says if nothing, or all, was attacked."""

from pathlib import Path

import numpy as np
import pytest

from smoothcert.pipeline.bracket import Bracket, bracket, brackets_of, patch_attacks_of
from smoothcert.pipeline.statistics import share_interval
from smoothcert.workers.runs.run import Run
from tests.helpers.judged_runs import CLASSES, CROP, image, judged_run
from tests.helpers.known_votes import holds
from tests.helpers.studies import attack

RANDOM = np.random.default_rng(0)
VOTES = {
    f"{number:02d}": np.where(RANDOM.random(CROP) < RANDOM.uniform(0.4, 1), number % CLASSES, 0).tolist()
    for number in range(40)
}
LABELS = {key: number % CLASSES if number % 5 else 1 for number, key in enumerate(VOTES)}


def run_of(folder: Path, *, labelled: bool = True) -> Run:
    """40 images in two shards, and one without votes."""
    images = [image(key, votes, LABELS[key] if labelled else None) for key, votes in VOTES.items()]
    shards = {"a.tar": images[:25], "b.tar": [image("none", None), *images[25:]]}
    return judged_run(folder, shards, images={"shards": "unused", "label": "cls" if labelled else None})


def prediction(votes: list[int]) -> int:
    counts = [votes.count(name) for name in range(CLASSES)]
    return counts.index(max(counts))


def certified(votes: list[int], side: int) -> bool:
    """Tried at every place, pixel by pixel."""
    return all(holds(votes, [left], side, set(), 1) for left in range(CROP - side + 1))


def one_bracket(right: int = 10, certified: int = 4, attacked: int = 0, fell: int = 0) -> Bracket:
    return Bracket((2, 2), True, 20, right, certified, attacked, fell, 0, (), ())


@pytest.mark.parametrize("labelled", [True, False])
def test_images_are_counted_as_by_brute_force(tmp_path: Path, labelled: bool) -> None:
    """Two attacks count together; an image that neither could attack does not; without labels all are right."""
    run = run_of(tmp_path, labelled=labelled)
    fragile = [key for key, votes in VOTES.items() if not certified(votes, 2)]
    sure = [key for key in VOTES if key not in fragile]
    assert min(len(fragile), len(sure)) > 8
    first = dict.fromkeys(fragile[:4], True) | dict.fromkeys(fragile[4:7], False) | {fragile[7]: None}
    second = dict.fromkeys(fragile[3:5], True) | dict.fromkeys(sure[:3], False)
    studies = [attack(run, first, seed=1), attack(run, second, seed=2)]
    attacked = {key for study in (first, second) for key, fell in study.items() if fell is not None}
    fell = {key for study in (first, second) for key, one in study.items() if one}

    def right(keys: list[str]) -> set[str]:
        return {key for key in keys if not labelled or prediction(VOTES[key]) == LABELS[key]}

    assert bracket(run, (2, 2), studies) == Bracket(
        patch=(2, 2),
        labelled=labelled,
        images=41,
        right=len(right([*VOTES])),
        certified=len(right(sure)),
        attacked=len(right(fragile) & attacked),
        fell=len(right(fragile) & fell),
        attacked_certified=3,
        fallen_certified=(),
        studies=tuple(study.record.study_id for study in studies),
    )


def test_attacks_are_found_by_the_size_of_their_patch(tmp_path: Path) -> None:
    """Those that are finished; all sizes are counted in one reading."""
    run = run_of(tmp_path)
    assert patch_attacks_of(run) == {}
    assert brackets_of(run, {}) == {}
    finished = [attack(run, {"01": True}, (2, 3), seed=seed) for seed in (0, 1)]
    attack(run, {"02": True}, (4, 4), finished=False)
    small = attack(run, {"02": False}, (1, 1))
    found = patch_attacks_of(run)
    assert [*found] == [(1, 1), (2, 3)]
    assert found[1, 1] == [small]
    assert sorted(study.url for study in found[2, 3]) == sorted(study.url for study in finished)
    assert brackets_of(run, found) == {patch: bracket(run, patch, studies) for patch, studies in found.items()}


def test_a_certified_image_that_fell_is_named(tmp_path: Path) -> None:
    """Right or wrong; it does not count among those that are not certified."""
    run = judged_run(tmp_path, {"a.tar": [image("0", [0] * CROP), image("1", [1] * CROP, 0), image("2", [0] * CROP)]})
    found = bracket(run, (2, 2), [attack(run, {"1": True, "2": True})])
    assert (found.attacked, found.fell, found.attacked_certified) == (0, 0, 2)
    assert found.fallen_certified == (("a.tar", 1), ("a.tar", 2))
    (problem,) = found.problems
    assert problem.startswith("2 certified images fell to a 2 x 2 patch (a.tar 1, a.tar 2): a certificate")
    assert one_bracket().problems == []


def test_without_an_attacked_image_only_smoothed_accuracy_bounds() -> None:
    found = one_bracket()
    assert (found.lower, found.upper, found.upper_text) == (0.2, (0.5, 0.2, 0.5), "at most 50.00 %")


def test_if_all_were_attacked_nothing_is_left_to_chance() -> None:
    """Also if all that is right is certified, so that none could be."""
    assert one_bracket(attacked=6, fell=4).upper == pytest.approx((0.3, 0.3, 0.3))
    assert one_bracket(attacked=6, fell=4).upper_text == "30.00 %"
    assert one_bracket(certified=10).upper == (0.5, 0.5, 0.5)
    assert one_bracket(certified=10).upper_text == "50.00 %"


def test_the_attacked_ones_speak_for_the_others() -> None:
    """By the exact interval of the share that stood."""
    found = one_bracket(attacked=4, fell=3)
    low, high = share_interval(1, 4)
    assert found.upper == pytest.approx(((4 + 6 / 4) / 20, (4 + 6 * low) / 20, (4 + 6 * high) / 20))
    assert found.lower <= found.upper.low
    assert found.upper_text == f"27.50 % ({100 * found.upper.low:.2f} to {100 * found.upper.high:.2f} %)"
    content = found.as_json()
    assert (content["certified_accuracy"], content["attacked"], content["fell"]) == (0.2, 4, 3)
    assert content["accuracy_under_attack"] == found.upper._asdict()
