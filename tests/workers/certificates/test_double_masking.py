"""Double masking against the published algorithm and an attacker who tries everything; the family of masks."""

import re
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import ablation_of
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Certificate, Claim, RuleName, Subject
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import Covers, MaskSet
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates import double_masking as rules
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.double_masking import (
    DOUBLE_MASKING,
    MaskBallots,
    exact_recovery,
    published_recovery,
)
from smoothcert.workers.certificates.rules import Answer
from tests.helpers.mask_maps import (
    IMAGES,
    check_slack,
    hiding,
    near,
    one_less,
    one_more,
    some_votes,
    threats_of,
    top_and_margin,
    with_masks,
    with_slack,
)
from tests.helpers.masks import (
    Bools,
    HandMasks,
    Votes,
    all_predictions,
    every_map,
    falls,
    on_a_line,
    two_mask_correct,
)

Recover = Callable[[MaskBallots, Covers], Answer]

every_image = pytest.mark.parametrize("image", IMAGES)


def published_predictions(image: str) -> Votes:
    masks, classes, _ = IMAGES[image]
    return all_predictions(masks, classes)


@cache
def all_ballots(image: str) -> MaskBallots:
    masks, classes, _ = IMAGES[image]
    return MaskBallots.of(Cast(every_map(masks, classes)), masks, classes=classes)


def uniform_by_hand(masks: HandMasks | MaskSet, maps: Votes) -> Bools:
    """[maps, masks]: whether the row of a mask shows one class."""
    return (maps[:, masks.unions] == maps[:, : masks.num_masks, None]).all(axis=2)


# How many answers of the published algorithm depend on its choice among classes with equally many votes: the highest
# instead of the lowest changes so many. All of them are maps without a uniform mask.
TIES = {
    "2 masks": 6,
    "3 masks": 108,
    "3 masks, a gap": 108,
    "4 masks": 11286,
    "4 masks on a grid": 216,
    "4 masks on a larger grid": 11286,
    "5 masks": 0,
    "3 masks, two patches": 120,
    "4 masks, two patches": 4104,
}


@every_image
def test_the_prediction_is_that_of_the_published_algorithm(image: str) -> None:
    """For every map; where the paper leaves a tie open, the lowest class. Ties matter without a uniform mask only."""
    masks, classes, _ = IMAGES[image]
    maps = every_map(masks, classes)
    found = all_ballots(image).prediction
    assert (found == published_predictions(image)).all()
    other = found != all_predictions(masks, classes, max)
    assert other.sum() == TIES[image]
    assert not uniform_by_hand(masks, maps)[other].any()


@every_image
def test_the_published_certificate_is_that_of_the_paper(image: str) -> None:
    """For every map: certified iff all votes, two masks at a time, show the prediction."""
    masks, classes, _ = IMAGES[image]
    found = published_recovery(all_ballots(image), masks.own_covers()).certified
    answers, unions = published_predictions(image).tolist(), masks.unions.tolist()
    for votes, label, certified in zip(every_map(masks, classes).tolist(), answers, found, strict=True):
        assert certified == two_mask_correct(votes, unions, label)


def check_recovery(image: str, rule: Recover, ballots: MaskBallots | None = None) -> None:
    """An image is certified iff no attack changes its prediction, but for the exception of docs/certificates.md:
    where half of the masks or more hide the patch and none of them is uniform, the rule refuses.
    """
    masks, classes, _ = IMAGES[image]
    uniform = uniform_by_hand(masks, every_map(masks, classes))
    for threat in threats_of(image):
        fallen, excepted = np.zeros((2, len(uniform)), bool)
        for patches in set(masks.placed(threat).values()):
            touched = masks.touched(patches)
            fallen |= falls(published_predictions(image), classes, masks.num_ablations, touched)
            hiding = [mask for mask in range(masks.num_masks) if mask not in touched]
            if 2 * len(hiding) >= masks.num_masks:
                excepted |= ~uniform[:, hiding].any(axis=1)
        certified = rule(ballots or all_ballots(image), masks.covers(threat)).certified
        assert not (certified & fallen).any(), "a certified prediction falls"
        assert (certified | fallen | excepted).all(), "an image is refused, but no attack succeeds"
        assert not (certified & excepted).any(), "an image is certified at a place without a uniform mask"


@every_image
def test_no_attack_changes_a_certified_prediction_and_one_changes_each_other(image: str) -> None:
    """All maps, all places of one patch and two, smaller patches, all assignments of the touched votes."""
    check_recovery(image, exact_recovery)


def test_more_than_ten_thousand_maps_are_attacked() -> None:
    """By the test above."""
    assert sum(len(all_ballots(image)) for image in IMAGES) > 180_000


@every_image
def test_the_published_rule_certifies_nothing_that_the_exact_rule_does_not(image: str) -> None:
    """At full size both certify the same predictions if each mask alone hides some place."""
    masks, _, _ = IMAGES[image]
    ballots = all_ballots(image)
    for threat in threats_of(image):
        covers = masks.covers(threat)
        exact, published = exact_recovery(ballots, covers).certified, published_recovery(ballots, covers).certified
        assert (exact | ~published).all()
        alone = {int(one.argmax()) for one in covers.sets if one.sum() == 1}
        assert (exact == published).all() == (len(alone) == masks.num_masks)


@pytest.mark.parametrize("image", [image for image in IMAGES if "two patches" not in image])
def test_the_exact_rule_is_tight_against_one_patch_of_full_size(image: str) -> None:
    """Each mask alone hides some place: a map is certified iff no attack changes its prediction."""
    masks, classes, _ = IMAGES[image]
    fallen = np.zeros(len(all_ballots(image)), bool)
    for patch in set(masks.placed(masks.own).values()):
        fallen |= falls(published_predictions(image), classes, masks.num_ablations, masks.touched(patch))
    assert (exact_recovery(all_ballots(image), masks.own_covers()).certified == ~fallen).all()


def test_against_two_patches_votes_of_single_rectangles_may_differ() -> None:
    """What a rectangle hides, its unions hide, too: the exact rule needs no uniform mask of a single rectangle."""
    masks = on_a_line(4, 1, [0, 1, 2, 3], 1, patches=2)
    votes = np.zeros((1, masks.num_ablations), int)
    votes[0, :4] = [0, 1, 1, 1]
    ballots = MaskBallots.of(Cast(votes), masks, classes=2)
    assert exact_recovery(ballots, masks.own_covers()).certified.tolist() == [True]
    assert published_recovery(ballots, masks.own_covers()).slack.tolist() == [-3]


# Of all maps that the rule refuses where so many masks hide the patch: how many no attack changes.
REFUSED = {
    # masks, classes: {hiding masks: (refused, not attacked)}
    (3, 2): {1: (48, 0), 2: (36, 12), 3: (26, 26)},
    (3, 3): {1: (648, 0), 2: (576, 144), 3: (510, 510)},
    (4, 2): {1: (896, 0), 2: (784, 88), 3: (684, 364), 4: (594, 594)},
    (4, 3): {1: (56862, 0), 2: (54756, 3510), 3: (52722, 21618), 4: (50754, 50754)},
    (5, 2): {1: (30720, 0), 2: (28800, 0), 3: (26992, 4912), 4: (25284, 14724), 5: (23666, 23666)},
}


@pytest.mark.parametrize(("count", "classes"), REFUSED)
def test_the_exact_rule_is_tight_unless_half_of_the_masks_hide_the_patch(count: int, classes: int) -> None:
    """Any masks hide the patch, whatever the geometry: the refusals that no attack confirms are counted."""
    masks = on_a_line(count, 1, range(count), 1)  # what they hide does not matter here
    maps = every_map(masks, classes)
    outcome = all_predictions(masks, classes)
    ballots = MaskBallots.of(Cast(maps), masks, classes=classes)
    found = {}
    for size in range(1, count + 1):
        covers = Covers(np.arange(count)[None] < size, np.zeros((1, 1, 2), int))
        touched = [vote for vote, members in enumerate(masks.subsets) if min(members) >= size]
        fallen = falls(outcome, classes, masks.num_ablations, touched)
        certified = exact_recovery(ballots, covers).certified
        assert not (certified & fallen).any()
        found[size] = int((~certified).sum()), int((~certified & ~fallen).sum())
    assert found == REFUSED[count, classes]
    assert all(not unconfirmed for size, (_, unconfirmed) in found.items() if 2 * size < count)


WRONG_RECOVERY = {
    "ignores a mask that hides the patch": with_masks(exact_recovery, one_less),
    "believes a mask that does not hide it": with_masks(exact_recovery, one_more),
    "ignores the first place": with_masks(exact_recovery, lambda sets: sets[1:] if len(sets) > 1 else sets),
    "ignores the last place": with_masks(exact_recovery, lambda sets: sets[:-1] if len(sets) > 1 else sets),
    "takes any place for all": with_masks(exact_recovery, lambda sets: sets.any(axis=0, keepdims=True)),
    "> for >=": with_slack(exact_recovery, lambda answer: answer.slack - 1),
    "one vote may differ": with_slack(published_recovery, lambda answer: answer.slack + 1),
}


@pytest.mark.parametrize("wrong", WRONG_RECOVERY)
def test_a_wrong_rule_of_recovery_fails(wrong: str) -> None:
    """The attacker finds each of these mistakes."""
    with pytest.raises(AssertionError, match=r"a certified prediction|an image is"):
        check_recovery("4 masks", WRONG_RECOVERY[wrong])


@pytest.mark.parametrize("skipped", [0, 1, -1])
def test_a_row_with_a_vote_left_out_of_account_fails(monkeypatch: pytest.MonkeyPatch, skipped: int) -> None:
    """A mask is uniform by its whole row."""
    masks, classes, _ = IMAGES["4 masks"]

    def all_but_one(votes: Votes, known: HandMasks) -> Bools:
        rows = np.delete(votes[:, known.unions], skipped, axis=2)
        uniform: Bools = (rows == votes[:, : known.num_masks, None]).all(axis=2)
        return uniform

    monkeypatch.setattr(rules, "_uniform", all_but_one)
    ballots = MaskBallots.of(Cast(every_map(masks, classes)), masks, classes=classes)
    with pytest.raises(AssertionError, match="a certified prediction falls"):
        check_recovery("4 masks", exact_recovery, ballots)


@given(some_votes(), st.sampled_from([0.0, 0.5, 0.75]))
@settings(max_examples=150)
def test_slack_of_recovery_is_that_of_a_plain_count(
    known: tuple[HandMasks, Threat, int, Cast], tolerance: float
) -> None:
    """Uniform masks that hide the weakest place, less one; votes that do not show the prediction."""
    masks, threat, classes, cast = known
    ballots = MaskBallots.of(cast, masks, classes=classes, tolerance=tolerance)
    covers = masks.covers(threat)
    exact, published = exact_recovery(ballots, covers), published_recovery(ballots, covers)
    assert (published.places == -1).all()
    assert cast.margins is not None
    places = hiding(masks, threat)
    for image, (votes, margins) in enumerate(zip(cast.votes.tolist(), cast.margins.tolist(), strict=True)):
        solid = [
            vote if not tolerance or margin >= tolerance else -1 for vote, margin in zip(votes, margins, strict=True)
        ]
        uniform = {one for one, row in enumerate(masks.unions) if {solid[vote] for vote in row} == {votes[one]}}
        at = {place: sum(mask in uniform for mask in masks_there) - 1 for place, masks_there in places.items()}
        check_slack(exact, image, at)
        assert published.slack[image] == -sum(vote != ballots.prediction[image] for vote in solid)


@pytest.mark.parametrize("image", ["3 masks", "4 masks", "3 masks, two patches"])
def test_a_tolerance_allows_for_other_rounding_of_recovery(image: str) -> None:
    """Logits that are off by less than half the tolerance, then any attack: the prediction stays."""
    masks, classes, _ = IMAGES[image]
    random, tolerance = np.random.default_rng(0), 0.4
    logits = random.normal(size=(3000, masks.num_ablations, classes)) + 3 * np.eye(classes)[random.integers(0, classes)]
    votes, margins = top_and_margin(logits)
    ballots = MaskBallots.of(Cast(votes, margins), masks, classes=classes, tolerance=tolerance)
    outcome = published_predictions(image)
    for threat in threats_of(image):
        certified = exact_recovery(ballots, masks.covers(threat)).certified
        fallen = np.zeros(len(outcome), bool)
        for patches in set(masks.placed(threat).values()):
            fallen |= falls(outcome, classes, masks.num_ablations, masks.touched(patches))
        for _ in range(10):
            other, _ = top_and_margin(near(logits, tolerance, random))
            index = np.ravel_multi_index(tuple(other.T), (classes,) * masks.num_ablations)
            assert (outcome[index] == ballots.prediction)[certified].all()
            assert not fallen[index][certified].any()
        assert 0 < certified.sum() < len(certified)
        strict = MaskBallots.of(Cast(votes, margins), masks, classes=classes)
        assert fallen[index][exact_recovery(strict, masks.covers(threat)).certified].any(), (
            "the tolerance is not needed"
        )


def test_a_vote_that_was_left_out_agrees_with_none() -> None:
    """The masks of a pair without a vote are not uniform, and the map does not show one class."""
    masks = on_a_line(5, 3, [0, 1, 2], 3)
    votes = np.zeros((2, 6), int)
    votes[1, 3] = -1  # masks 0 and 1
    ballots = MaskBallots.of(Cast(votes), masks, classes=2)
    assert ballots.uniform.tolist() == [[True] * 3, [False, False, True]]
    assert ballots.prediction.tolist() == [0, 0]
    assert published_recovery(ballots, masks.own_covers()).slack.tolist() == [0, -1]
    assert exact_recovery(ballots, masks.own_covers()).slack.tolist() == [0, -1]


@pytest.mark.parametrize("image", ["4 masks", "4 masks on a grid", "4 masks, two patches"])
def test_votes_that_no_row_needs_change_no_answer(image: str) -> None:
    """In any order: a vote is left out once each row that it belongs to holds a vote of another class."""
    masks, classes, _ = IMAGES[image]
    random = np.random.default_rng(0)
    votes = random.permutation(every_map(masks, classes))[:2000]
    votes[::2] = np.where(random.random(votes[::2].shape) < 0.8, 0, votes[::2])
    cast = votes.copy()
    cast[:, masks.num_masks :] = -1
    rows_of = [np.flatnonzero((masks.unions == vote).any(axis=1)) for vote in range(masks.num_ablations)]
    for known, row in zip(cast, votes, strict=True):
        for vote in random.permutation(np.arange(masks.num_masks, masks.num_ablations)):
            settled = [bool(set(known[masks.unions[mask]].tolist()) - {-1, known[mask]}) for mask in rows_of[vote]]
            if not all(settled):
                known[vote] = row[vote]
    assert 0 < (cast < 0).sum() < cast.size / 2
    found = MaskBallots.of(Cast(cast), masks, classes=classes)
    expected = MaskBallots.of(Cast(votes), masks, classes=classes)
    assert (found.prediction == expected.prediction).all()
    assert (found.uniform == expected.uniform).all()
    published = [published_recovery(some, masks.own_covers()).certified for some in (found, expected)]
    assert (published[0] == published[1]).all()
    assert published[0].any()


@every_image
def test_a_certificate_holds_for_smaller_patches(image: str) -> None:
    """What hides a patch hides each smaller one at the same place."""
    masks, _, patches = IMAGES[image]
    ballots = all_ballots(image)
    held = [exact_recovery(ballots, masks.covers(Threat(*patch, masks.own.patches))).certified for patch in patches]
    for (large, certified), (small, more) in product(zip(patches, held, strict=True), repeat=2):
        if small[0] <= large[0] and small[1] <= large[1]:
            assert (more | ~certified).all()


def test_smaller_patches_gain_where_two_masks_hide_them() -> None:
    """Masks of 4 pixels at 0, 1, 2, 3: masks 1 and 2 both hide pixels 2 to 4, and one of them is enough."""
    masks = on_a_line(7, 4, [0, 1, 2, 3], 4)
    votes = np.zeros((1, 10), int)
    votes[0, masks.subsets.index(frozenset([1]))] = 1
    ballots = MaskBallots.of(Cast(votes), masks, classes=2)
    assert exact_recovery(ballots, masks.covers(Threat(1, 4))).slack.tolist() == [-1]
    assert exact_recovery(ballots, masks.covers(Threat(1, 3))).slack.tolist() == [0]


def test_two_images_of_different_classes_show_the_same_votes_in_one_round() -> None:
    """Masks hide pixel 0 or pixel 1, and the class is the sign of what is left. Attacked at different pixels, an image
    of class 0 and one of class 1 cast the same votes, though each was unanimous: no rule can tell them apart.
    """

    def one_round(image: tuple[int, int]) -> list[int]:
        return [int(sum(image) - image[hidden] > 0) for hidden in (0, 1)]

    assert one_round((-1, -1)) == [0, 0]
    assert one_round((1, 1)) == [1, 1]
    assert one_round((5, -1)) == one_round((1, -5)) == [0, 1]


@pytest.mark.parametrize(("masks", "classes"), [(2, 2), (3, 2), (2, 3)])
def test_no_rule_of_one_round_certifies_images_of_two_classes(masks: int, classes: int) -> None:
    """Every function from the votes of single masks to a class, masks that each hide one place: all maps that no attack
    changes have one answer. So the classes of unanimous images are not all recovered, whatever the rule.
    """
    maps = list(product(range(classes), repeat=masks))
    reached = [
        [place for place, other in enumerate(maps) if any(one == two for one, two in zip(votes, other, strict=True))]
        for votes in maps
    ]
    for answers in product(range(classes), repeat=len(maps)):
        certified = {
            answers[one] for one, others in enumerate(reached) if len({*map(answers.__getitem__, others)}) == 1
        }
        assert len(certified) <= 1


def test_the_rule_is_tight_everywhere_if_the_whole_image_decides_last() -> None:
    """A variant asks every mask, not only those that differ from the majority, and falls back on the class of the whole
    image, which every attack reaches. There a refusal is confirmed by an attack unless all masks hide the patch.
    """
    classes, count = 2, 4
    masks = on_a_line(count, 1, range(count), 1)
    maps = every_map(masks, classes)
    uniform = uniform_by_hand(masks, maps)
    singles = maps[:, :count]
    decided = uniform.any(axis=1) | (singles == singles[:, :1]).all(axis=1)
    first = np.where(uniform.any(axis=1), singles[np.arange(len(maps)), uniform.argmax(axis=1)], singles[:, 0])
    whole = np.arange(classes)
    outcome = np.where(decided[:, None], first[:, None], whole)  # [maps, class of the whole image]
    for hiding_masks in range(1, count):
        touched = [vote for vote, members in enumerate(masks.subsets) if min(members) >= hiding_masks]
        table = outcome.reshape((classes,) * (masks.num_ablations + 1))
        axes = (*touched, masks.num_ablations)
        fallen = table.min(axis=axes, keepdims=True) != table.max(axis=axes, keepdims=True)
        certified = uniform[:, :hiding_masks].any(axis=1).reshape((*(classes,) * masks.num_ablations, 1))
        assert (certified == ~fallen).all()


# Ablations of jobs, on an image of 5 x 6 pixels.
JOBS = [
    ({"threat": "2x3", "per_axis": 2}, [Threat(2, 3), Threat(1, 3), Threat(2, 2), Threat(1, 1)]),
    ({"threat": 2, "per_axis": 3}, [Threat(2, 2), Threat(2, 1)]),
    ({"threat": 1, "per_axis": 3, "threat_patches": 2}, [Threat(1, 1, 2), Threat(1, 1)]),
]


def masks_of(keys: dict[str, object]) -> MaskSet:
    masks = ablations_of(ablation_of({"kind": "mask", **keys}), 5, 6)
    assert isinstance(masks, MaskSet)
    return masks


@pytest.mark.parametrize(("keys", "threats"), JOBS)
def test_masks_of_a_job_give_the_answers_of_sets_of_pixels(keys: dict[str, object], threats: list[Threat]) -> None:
    """Every rule, whatever order the masks and their votes are in."""
    masks = masks_of(keys)
    by_hand = HandMasks.like(masks, threats[0])
    assert masks.num_ablations == by_hand.num_ablations
    assert (masks.unions == by_hand.unions).all()
    random = np.random.default_rng(0)
    shape = (200, masks.num_ablations)
    votes = np.where(random.random(shape) < 1 - 2 / shape[1], 1, random.integers(0, 3, shape)).astype(np.uint16)
    margins = (1 + random.random(shape)).astype(np.float32)
    cast = Cast(votes, margins, None, random.choice(2, 200, p=[0.1, 0.9]), np.ones(200, np.float32))
    ballots = DOUBLE_MASKING.ballots(cast, masks, classes=3, tolerance=1.01)
    same = MaskBallots.of(cast, by_hand, classes=3, tolerance=1.01)
    for threat, certificate, name in product(threats, Certificate, ["exact", "published"]):
        rule = DOUBLE_MASKING.rule(Claim(certificate, RuleName(name)))
        found, expected = rule(ballots, masks, threat), rule(same, by_hand, threat)
        assert found.slack.tolist() == expected.slack.tolist()
        assert found.places.shape == expected.places.shape


@pytest.mark.parametrize(("keys", "threats"), JOBS)
def test_slack_at_each_place_is_that_of_the_masks_that_hide_it(keys: dict[str, object], threats: list[Threat]) -> None:
    """In row-major order; the smallest is the slack of the image."""
    masks = masks_of(keys)
    random = np.random.default_rng(0)
    votes = (random.random((50, masks.num_ablations)) < 1 / masks.num_ablations).astype(int)
    ballots = DOUBLE_MASKING.ballots(Cast(votes), masks, classes=2)
    uniform = uniform_by_hand(masks, votes)
    for threat in (Threat(one.height, one.width) for one in threats):
        found = DOUBLE_MASKING.slack_everywhere(ballots, masks, threat.height, threat.width)
        places = hiding(HandMasks.like(masks, threats[0]), threat).values()
        assert (found == np.stack([uniform[:, there].sum(axis=1) - 1 for there in places], axis=1)).all()
        assert (found.min(axis=1) == DOUBLE_MASKING.rule()(ballots, masks, threat).slack).all()


def test_patches_that_no_mask_hides_are_refused() -> None:
    """By every rule, also where places do not matter to it."""
    masks = masks_of({"threat": 2, "per_axis": 3})
    ballots = DOUBLE_MASKING.ballots(Cast(np.zeros((1, masks.num_ablations), int)), masks, classes=2)
    for name in ("exact", "published"):
        with pytest.raises(RequestError, match=r"^patch 5 x 5: no mask hides it at [^\n]*$"):
            DOUBLE_MASKING.rule(Claim(rule=RuleName(name)))(ballots, masks, Threat(5, 5))


def test_images_do_not_matter_to_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many images are worked on together, each gets the answer that it gets alone."""
    masks = IMAGES["4 masks"][0]
    random = np.random.default_rng(0)
    shape = (50, masks.num_ablations)
    cast = Cast(
        np.where(random.random(shape) < 0.9, 1, random.integers(0, 3, shape)),
        random.random(shape).astype(np.float32),
        None,
        random.integers(0, 3, 50),
        random.random(50).astype(np.float32),
    )
    rules_of_all = [DOUBLE_MASKING.rule(Claim(*one)) for one in product(Certificate, ["exact", "published"])]

    def answers(some: MaskBallots) -> list[list[Any]]:
        found = [rule(some, masks, Threat(1, 3)) for rule in rules_of_all]
        return [
            [one.slack.tolist(), one.places.tolist(), None if one.alarms is None else one.alarms.tolist()]
            for one in found
        ]

    together = MaskBallots.of(cast, masks, classes=3, tolerance=0.1)
    expected = answers(together)
    monkeypatch.setattr(rules, "_NUMBERS_AT_ONCE", 25)
    assert answers(MaskBallots.of(cast, masks, classes=3, tolerance=0.1)) == expected
    chosen = np.array([7, 3, 20])
    for some, slack in zip(answers(together.of_images(chosen)), expected, strict=True):
        assert some[0] == [slack[0][one] for one in chosen]
        assert some[1] == [slack[1][one] for one in chosen]
    assert len(together.of_images(slice(0, 0))) == 0
    assert together.of_images(chosen).prediction.tolist() == together.prediction[chosen].tolist()


def test_stored_columns_are_the_answers_to_the_own_threat() -> None:
    """Columns of majority votes are null, and detection without the classes of whole images."""
    masks = IMAGES["4 masks"][0]
    votes = every_map(masks, 3)
    clean = np.arange(len(votes)) % 3
    found = DOUBLE_MASKING.certify(Cast(votes, None, None, clean), masks, classes=3)
    assert tuple(vars(found)) == DOUBLE_MASKING.columns
    ballots, covers = all_ballots("4 masks"), masks.own_covers()
    assert (found.prediction == published_predictions("4 masks")).all()
    assert (found.recovery_certified == exact_recovery(ballots, covers).certified).all()
    assert (found.recovery_published == published_recovery(ballots, covers).certified).all()
    assert (found.detection_certified == (votes[:, :4] == clean[:, None]).all(axis=1)).all()
    nulls = ["count", "runner_up", "runner_up_count", "max_certified_patch", "max_margin_certified_patch"]
    assert [name for name, column in vars(found).items() if column is None] == nulls
    for unknown in (None, np.full(len(votes), -1)):
        without = DOUBLE_MASKING.certify(Cast(votes, None, None, unknown), masks, classes=3)
        assert without.detection_certified is None
        assert (without.recovery_certified == found.recovery_certified).all()


def test_no_images_have_no_certificates() -> None:
    """Of no images there are no certificates, and no error."""
    masks = IMAGES["3 masks"][0]
    none = np.zeros((0, 6), np.int64)
    found = DOUBLE_MASKING.certify(Cast(none, None, None, np.zeros(0, int)), masks, classes=2)
    assert [len(column) for column in vars(found).values() if column is not None] == [0] * 4
    ballots = DOUBLE_MASKING.ballots(Cast(none, None, None, np.zeros(0, int)), masks, classes=2)
    for claim in (Claim(), Claim(Certificate.detection)):
        answer = DOUBLE_MASKING.rule(claim)(ballots, masks, Threat(1, 1))
        assert answer.slack.tolist() == []
        assert answer.places.shape == (0, 1, 2)


def test_narrow_votes_are_counted_right() -> None:
    """Votes as 16-bit numbers, the type of the table, give the same answers as wide ones."""
    masks = IMAGES["4 masks"][0]
    votes = np.random.default_rng(0).integers(0, 2, (500, 10)) * 65535
    wide = DOUBLE_MASKING.certify(Cast(votes, None, None, votes[:, 0]), masks, classes=65536)
    narrow = DOUBLE_MASKING.certify(Cast(votes.astype(np.uint16), None, None, votes[:, 0]), masks, classes=65536)
    for name, column in vars(wide).items():
        assert column is None or (column == getattr(narrow, name)).all()


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        (
            Claim(top=2),
            "--top 2: votes of masks certify the prediction alone; leave --top out, or ",
        ),
        (Claim(of=Subject.label), "--of label: votes of masks certify the prediction alone; leave"),
        (Claim(rule=RuleName.margin), "rule: margin does not decide votes of masks; use exact or published"),
        (Claim(alarm_below=0.5), "alarm below 0.5: recovery raises no alarms; ask for detection"),
        (Claim(Certificate.detection, alarm_below=-1), "alarm below -1: must be a margin, 0 or more"),
        (Claim(Certificate.detection, alarm_below=float("nan")), "alarm below nan: must be a margin, 0 or more"),
    ],
)
def test_claims_that_masks_do_not_decide_are_refused(claim: Claim, says: str) -> None:
    """In one line that says what to do."""
    with pytest.raises(RequestError, match=f"^{re.escape(says)}[^\n]*$"):
        DOUBLE_MASKING.rule(claim)


@pytest.mark.parametrize(
    ("cast", "tolerance", "says"),
    [
        (Cast(np.zeros((1, 5), int)), 0, "5 votes an image do not fit 6 ablations"),
        (Cast(np.full((1, 6), 2)), 0, "votes from 2 to 2 do not fit 2 classes"),
        (Cast(np.full((1, 6), -2)), 0, "votes from -2 to -2 do not fit 2 classes"),
        (Cast(np.full((1, 6), -1)), 0, "votes from -1 to -1 do not fit 2 classes"),  # single masks always vote
        (Cast(np.zeros((1, 6), int)), 0.1, "a tolerance needs margins"),
        (Cast(np.zeros((1, 6), int), np.ones((1, 6), np.float32), None, np.zeros(1, int)), 0.1, "a tolerance needs"),
    ],
)
def test_votes_that_cannot_be_of_masks_are_a_defect(cast: Cast, tolerance: float, says: str) -> None:
    """They are never certified."""
    with pytest.raises(ValueError, match=says):
        MaskBallots.of(cast, IMAGES["3 masks"][0], classes=2, tolerance=tolerance)
