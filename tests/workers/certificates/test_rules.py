"""Both rules against an attacker that tries everything, and examples counted by hand."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations import threats as reaches
from smoothcert.workers.ablations import unions
from smoothcert.workers.ablations.kinds import RowsTimesColumns, ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.ablations.touched import Touched
from smoothcert.workers.certificates.rules import (
    Ballots,
    exact_rule,
    exact_signs,
    margin_rule,
    slack_everywhere,
    slack_if_touched,
)
from tests.helpers.ablations import other_kinds
from tests.helpers.votes import (
    EveryUnion,
    ballots_near_the_edge,
    correlated_votes,
    geometries,
    needs_a_bound,
    threats,
    touched_by_hand,
)

Votes = NDArray[np.int64]
TRIED = 5  # touched votes of which every assignment is tried; of more, every count of them


def predicted(votes: list[int], classes: int) -> int:
    """Most votes, the lowest class on a tie."""
    return max(range(classes), key=lambda label: (votes.count(label), -label))


def attacker_wins(votes: list[int], reached: frozenset[int], classes: int, tried: int = TRIED) -> bool:
    """Whether some assignment of the reached votes changes the prediction.

    Of few votes all assignments are tried, of more all counts of them: the outcome depends on nothing else.
    """
    kept = np.bincount([vote for place, vote in enumerate(votes) if place not in reached], minlength=classes)
    if len(reached) <= tried:
        assignments = every_assignment(len(reached), classes)
        attacked = np.tile(votes, (len(assignments), 1))
        attacked[:, list(reached)] = assignments
        counts = (attacked[:, :, None] == np.arange(classes)).sum(axis=1)
    else:
        counts = kept + splits(len(reached), classes)
    return bool((counts.argmax(axis=1) != predicted(votes, classes)).any())  # argmax takes the lowest on a tie


@cache
def every_assignment(votes: int, classes: int) -> NDArray[np.int64]:
    """All ways to give each of so many votes to a class."""
    return np.array(list(product(range(classes), repeat=votes)), np.int64)


@cache
def splits(votes: int, classes: int) -> NDArray[np.int64]:
    """All ways to give so many votes to the classes, as counts."""
    some = [split for split in product(range(votes + 1), repeat=classes - 1) if sum(split) <= votes]
    return np.array([[*split, votes - sum(split)] for split in some])


def slack_by_hand(votes: list[int], reached: frozenset[int], classes: int) -> int:
    """The smallest over all rivals of the lead that is left when the reached votes are theirs."""
    winner = predicted(votes, classes)
    kept = [vote for place, vote in enumerate(votes) if place not in reached]
    return min(
        kept.count(winner) - kept.count(rival) - len(reached) - (rival < winner)
        for rival in range(classes)
        if rival != winner
    )


def cases(ballots: Ballots) -> list[tuple[list[int], frozenset[int]]]:
    """The votes of each image, and which of them are fragile."""
    fragile = np.zeros(ballots.votes.shape, bool) if ballots.fragile is None else ballots.fragile
    return [
        (votes, frozenset(np.flatnonzero(shaky).tolist()))
        for votes, shaky in zip(ballots.votes.tolist(), fragile, strict=True)
    ]


def check_against_the_attacker(geometry: RowsTimesColumns, threat: Threat, classes: int, seed: int, tried: int) -> None:
    ballots = ballots_near_the_edge(geometry, threat, classes, seed)
    places = touched_by_hand(geometry, threat)
    exact, margin = exact_rule(ballots, geometry, threat), margin_rule(ballots, geometry, threat)
    assert not exact.is_bound
    assert exact_signs(ballots, geometry, threat).certified.tolist() == exact.certified.tolist()
    largest = max(len(one) for one in places.values())
    for image, (votes, fragile) in enumerate(cases(ballots)):
        reached = {several: one | fragile for several, one in places.items()}
        sets = set(reached.values())  # many places share a set
        broken = any(attacker_wins(votes, one, classes, tried) for one in sets)
        slack_of = {one: slack_by_hand(votes, one, classes) for one in sets}
        slacks = {several: slack_of[one] for several, one in reached.items()}
        assert exact.certified[image] == (not broken)
        assert exact.slack[image] == min(slacks.values())
        weakest = sorted((int(y), int(x)) for y, x in exact.places[image])
        weakest += weakest[-1:] * (threat.patches - len(weakest))
        assert slacks[tuple(weakest)] == exact.slack[image]
        assert not margin.certified[image] or exact.certified[image]
        most = max(len(one) for one in reached.values())
        assert most >= largest
        assert margin.slack[image] == slack_by_hand(votes, frozenset(), classes) - 2 * most


@settings(max_examples=1300)
@given(st.data(), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_exact_rule_is_what_an_attacker_can_do(data: st.DataObject, classes: int, seed: int) -> None:
    """Certified iff no assignment of the votes that are touched, at any places of the patches, changes the prediction.

    10,400 tables of votes, chosen near the edge; ties, fragile votes, one and two patches among them.
    """
    geometry = data.draw(geometries())
    threat = data.draw(threats(geometry))
    check_against_the_attacker(geometry, threat, classes, seed, TRIED)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=300)
@given(st.data(), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_exact_rule_against_every_assignment_of_eight(data: st.DataObject, classes: int, seed: int) -> None:
    """The same with every literal assignment of up to 8 touched votes."""
    geometry = data.draw(geometries())
    threat = data.draw(threats(geometry))
    check_against_the_attacker(geometry, threat, classes, seed, tried=8)


@settings(max_examples=150)
@given(st.data(), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_slack_at_every_place_is_counted_there(data: st.DataObject, classes: int, seed: int) -> None:
    """The slack at each place of one patch is what counting there gives."""
    geometry = data.draw(geometries(longest=6))
    threat = data.draw(threats(geometry, patches=1))
    ballots = ballots_near_the_edge(geometry, threat, classes, seed)
    slack = slack_everywhere(ballots, Touched.everywhere(geometry, threat.height, threat.width))
    across = geometry.width - threat.width + 1
    for image, (votes, fragile) in enumerate(cases(ballots)):
        for ((y, x),), one in touched_by_hand(geometry, threat).items():
            assert slack[image, y * across + x] == slack_by_hand(votes, one | fragile, classes)


@settings(max_examples=150)
@given(st.data(), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_bound_for_many_patches_is_sound(data: st.DataObject, classes: int, seed: int) -> None:
    """Where the unions are too many to list, what is certified is certified by listing them, under both rules."""
    geometry = data.draw(geometries(longest=6))
    threat = data.draw(threats(geometry))._replace(patches=data.draw(st.integers(2, 3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unions, "MAX_EXACT", 1 << 30)
        ballots = ballots_near_the_edge(geometry, threat, classes, seed)
        listed = {rule: rule(ballots, geometry, threat) for rule in (exact_rule, margin_rule)}
        patch.setattr(unions, "MAX_EXACT", 0)
        fresh = RowsTimesColumns(geometry.rows, geometry.columns)  # a geometry keeps what it has listed
        bound = {rule: rule(ballots, fresh, threat) for rule in (exact_rule, margin_rule)}
    for rule, answer in bound.items():
        assert answer.is_bound == needs_a_bound(geometry, threat)
        assert not answer.is_bound or (answer.places == -1).all()
        assert (answer.slack <= listed[rule].slack).all()
    assert (bound[exact_rule].certified | ~bound[margin_rule].certified).all()


@settings(max_examples=200)
@given(st.data(), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_two_patches_are_answered_as_by_a_list_of_every_union(data: st.DataObject, classes: int, seed: int) -> None:
    """The same slack under both rules, and a place that has it; also on images too large for an attacker."""
    geometry = data.draw(geometries() | geometries(longest=16, largest=7))
    threat = data.draw(threats(geometry))._replace(patches=2)
    ballots = correlated_votes(geometry, classes, seed)
    listed = EveryUnion.of(geometry, threat)
    for rule in (exact_rule, margin_rule):
        found, expected = rule(ballots, geometry, threat), rule(ballots, listed, threat)
        assert found.slack.tolist() == expected.slack.tolist()
    exact, signs = exact_rule(ballots, geometry, threat), exact_signs(ballots, geometry, threat)
    assert signs.certified.tolist() == exact.certified.tolist()
    for image, places in enumerate(exact.places):
        lost = np.logical_or.reduce([geometry.touched_at(*threat[:2], top, left) for top, left in places.tolist()])
        fragile = False if ballots.fragile is None else ballots.fragile[image]
        slack, _ = slack_if_touched(ballots.of_images(slice(image, image + 1)), lost | fragile)
        assert slack[0] == exact.slack[image]


@settings(max_examples=100)
@given(st.data(), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_fragile_votes_allow_for_other_rounding(data: st.DataObject, classes: int, seed: int) -> None:
    """Theorem 6: logits that are off by less than half the tolerance, then any attack: the prediction stays."""
    geometry = data.draw(geometries(longest=6))
    threat = data.draw(threats(geometry, patches=1))
    random = np.random.default_rng(seed)
    logits = random.normal(size=(30, geometry.num_ablations, classes)) + 2 * np.eye(classes)[random.integers(classes)]
    top = np.sort(logits, axis=2)
    tolerance = 0.3
    ballots = Ballots.of(logits.argmax(2), classes=classes, fragile=top[:, :, -1] - top[:, :, -2] < tolerance)
    certified = np.flatnonzero(exact_rule(ballots, geometry, threat).certified)[:3]
    for image in certified:
        other = (logits[image] + random.uniform(-0.499, 0.499, logits[image].shape) * tolerance).argmax(1).tolist()
        winner = int(ballots.tally.prediction[image])
        assert predicted(other, classes) == winner
        for one in set(touched_by_hand(geometry, threat).values()):
            for rival in range(classes):
                attacked = [rival if place in one else vote for place, vote in enumerate(other)]
                assert predicted(attacked, classes) == winner


@pytest.mark.parametrize("numbers_at_once", [1, 60, 1000])
def test_parts_cover_all_images(monkeypatch: pytest.MonkeyPatch, numbers_at_once: int) -> None:
    """However many images are worked on together, each gets the answer that it gets alone."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 7, 7)
    votes = (np.random.default_rng(0).random((300, 7)) ** 3 * 4).astype(np.int64)
    ballots = Ballots.of(votes, classes=5)
    together = [rule(ballots, geometry, Threat(2, 2)) for rule in (exact_rule, margin_rule)]
    everywhere = slack_everywhere(ballots, Touched.everywhere(geometry, 2, 2))
    monkeypatch.setattr(reaches, "NUMBERS_AT_ONCE", numbers_at_once)
    for rule, answer in zip((exact_rule, margin_rule), together, strict=True):
        assert rule(ballots, geometry, Threat(2, 2)).slack.tolist() == answer.slack.tolist()
    assert (slack_everywhere(ballots, Touched.everywhere(geometry, 2, 2)) == everywhere).all()
    assert together[0].certified.any()
    assert not together[0].certified.all()


def test_one_geometry_answers_for_one_patch_and_for_two() -> None:
    """What is kept of a geometry for one patch is not taken for two."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 12, 12)
    ballots = Ballots.of(np.array([[0] * 9 + [1] * 3]), classes=2)
    slack = [int(exact_rule(ballots, geometry, Threat(1, 1, patches)).slack[0]) for patches in (1, 2, 1, 3, 2)]
    assert slack[0] == slack[2] > slack[1] == slack[4] > slack[3]


@pytest.mark.parametrize("patches", [12, 10**9, 10**52])
def test_more_patches_than_places_add_nothing(patches: int) -> None:
    """More patches than places add nothing: all votes are lost, at once and exactly."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 12, 12)
    answer = exact_rule(Ballots.of(np.zeros((1, 12), int), classes=2), geometry, Threat(1, 1, patches))
    assert answer.slack.tolist() == [12 - 24]
    assert not answer.is_bound


def holds(votes: Votes, classes: int, geometry: RowsTimesColumns, height: int, width: int) -> bool:
    """The exact rule for one image and one patch."""
    return bool(exact_rule(Ballots.of(votes, classes=classes), geometry, Threat(height, width)).certified[0])


# A pixel is touched by 2 of the 10 columns of 2 pixels.
BY_HAND = [
    ([0] * 10, 2, True),  # nobody else has votes
    ([0] * 7 + [1] * 3, 2, True),  # 7:3 becomes 5:5 at worst, and class 0 wins the tie
    ([1] * 7 + [0] * 3, 2, False),  # 7:3 becomes 5:5, and class 0 wins the tie
    ([1] * 7 + [0] * 3, 3, False),  # the same with a class that nobody votes for
    ([1] * 7 + [2] * 3, 3, True),  # class 0 gets 2, class 2 gets 5, and class 1 wins the tie
    ([0] * 6 + [1] * 4, 2, False),  # 6:4 becomes 4:6
    ([0, 1, 0, 1, 0, 1, 0, 1, 0, 0], 2, False),  # 6:4 becomes 4:6 where the neighbours 8 and 9 are touched
    ([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], 2, False),  # a tie, which class 0 wins until it loses a vote
    ([0, 1, 0, 1, 0, 1, 0, 1, 0, 2], 3, False),  # 5:4 becomes 4:5
    ([0, 0, 1, 0, 0, 1, 0, 0, 1, 1], 2, False),  # 6:4 becomes 4:6
    ([0, 1, 0, 0, 1, 0, 0, 1, 0, 0], 2, True),  # 7:3 becomes 5:5 at worst, and class 0 wins the tie
]


@pytest.mark.parametrize(("votes", "classes", "certified"), BY_HAND)
def test_examples_counted_by_hand_hold(votes: list[int], classes: int, certified: bool) -> None:
    """Leads and ties counted by hand on 10 columns of 2 pixels, under a patch of 1 pixel."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 10, 10)
    assert holds(np.array([votes]), classes, geometry, 1, 1) == certified


def test_classes_without_votes_are_rivals() -> None:
    """Three votes for class 1: another class of none needs two of them, and class 0 also wins the tie that it makes."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=1), 4, 4)
    votes = np.array([[1, 1, 1, 1]])
    held = [holds(votes, classes, geometry, 1, width) for classes in (2, 9) for width in (1, 2, 3)]
    assert held == [True, False, False] * 2
    zeros = np.zeros_like(votes)
    held = [holds(zeros, 2, geometry, 1, width) for width in (1, 2, 3)]
    assert held == [True, True, False]  # the tie of 2 against 2 stays with class 0


def test_17_votes_against_6_fall_where_six_ablations_are_touched() -> None:
    """Where a formula says that 5 ablations are touched, 6 are; 17 votes against 6 then fall to a 32-pixel patch."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=19, stride=10), 224, 224)
    votes = np.zeros((1, 23), np.int64)
    votes[0, 8:14] = 1
    ballots = Ballots.of(votes, classes=2)
    assert (geometry.num_ablations, Touched.everywhere(geometry, 32, 32).most) == (23, 6)
    assert ballots.tally.leads[0, 1] == 11
    assert 2 * 5 <= 11 < 2 * 6
    assert margin_rule(ballots, geometry, Threat(32, 32)).slack.tolist() == [-1]
    assert not exact_rule(ballots, geometry, Threat(32, 32)).certified[0]
    strip = RowsTimesColumns.of(WindowAblation(kind="column", size=19, stride=10), 1, 224)
    reached = touched_by_hand(strip, Threat(1, 32)).values()
    assert any(attacker_wins(votes[0].tolist(), one, 2, tried=6) for one in reached)


def published_formula(size: int, stride: int, side: int) -> int:
    """D as the published implementation takes it."""
    return -(-(side + size - 1) // stride)


def falls_though_the_formula_certifies(geometry: RowsTimesColumns, formula: int, side: int) -> bool:
    """Whether some votes for two classes pass the published test, and an attacker changes the prediction."""
    if Touched.everywhere(geometry, 1, side).most <= formula:
        return False
    reached = set(touched_by_hand(geometry, Threat(1, side)).values())
    return any(
        Ballots.of(np.array([votes]), classes=2).tally.leads[0, 1] >= 2 * formula
        and any(attacker_wins(list(votes), one, 2) for one in reached)
        for votes in product(range(2), repeat=geometry.num_ablations)
    )


def test_smallest_counterexample_to_the_published_formula() -> None:
    """On 3 pixels, b = 2, s = 2, m = 1 falls though the formula certifies; on fewer pixels nothing does."""
    wrong = [
        (width, size, stride, side)
        for width in (1, 2, 3)
        for size, stride, side in product(range(1, width + 1), repeat=3)
        if falls_though_the_formula_certifies(
            RowsTimesColumns.of(WindowAblation(kind="column", size=size, stride=stride), 1, width),
            published_formula(size, stride, side),
            side,
        )
    ]
    assert wrong == [(3, 2, 2, 1)]


@settings(max_examples=200)
@given(st.integers(1, 40), st.data())
def test_the_published_formula_holds_where_strides_are_even(width: int, data: st.DataObject) -> None:
    """Without wrap-around, or with a stride that divides the width, no patch touches more than the formula says."""
    size, side, stride = (data.draw(st.integers(1, width)) for _ in range(3))
    edges = "inside" if width % stride else data.draw(st.sampled_from(["wrap", "inside"]))
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=size, stride=stride, edges=edges), 1, width)
    assert Touched.everywhere(geometry, 1, side).most <= published_formula(size, stride, side)


def test_one_of_several_runners_up_is_not_enough() -> None:
    """Classes 0 and 2 tie as runner-up: the test against class 2 alone passes, and class 0 takes the prediction."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=1), 1, 2)
    votes = np.array([[1, 1]])
    counts = [0, 2, 0]
    assert counts[1] == counts[2] + 2 * Touched.everywhere(geometry, 1, 1).most  # and 1 < 2: one runner-up passes
    assert attacker_wins([1, 1], frozenset({0}), 3)
    assert not holds(votes, 3, geometry, 1, 1)
    assert not margin_rule(Ballots.of(votes, classes=3), geometry, Threat(1, 1)).certified[0]


def test_a_patch_larger_than_the_image_is_refused() -> None:
    """A patch that does not fit into the image is a RequestError, not a certificate."""
    votes = np.zeros((1, 4), np.int64)
    with pytest.raises(RequestError, match="patch 5 x 1"):
        holds(votes, 2, RowsTimesColumns.of(WindowAblation(kind="column", size=1), 4, 4), 5, 1)


def test_votes_of_other_ablations_are_refused() -> None:
    """Votes that are not one for each ablation are a defect, never certified."""
    ballots = Ballots.of(np.zeros((1, 5), np.int64), classes=2)
    with pytest.raises(ValueError, match="do not fit 4 ablations"):
        exact_rule(ballots, RowsTimesColumns.of(WindowAblation(kind="column", size=1), 4, 4), Threat(1, 1))


@settings(max_examples=60)
@given(st.sampled_from(list(other_kinds(8))), st.integers(1, 3), st.integers(2, 3), st.integers(0, 2**32 - 1))
def test_the_exact_rule_holds_for_any_kind_of_ablation(kind: str, side: int, classes: int, seed: int) -> None:
    """A rule knows a kind by the sets that it reaches: certified iff no attack on one of them succeeds."""
    ablations, threat = other_kinds(8)[kind], Threat(side, side)
    random = np.random.default_rng(seed)
    shape = (6, ablations.num_ablations)
    votes = np.where(random.random(shape) < 0.1, random.integers(0, classes, shape), random.integers(0, classes))
    answer = exact_rule(Ballots.of(votes, classes=classes), ablations, threat)
    reached = {frozenset(np.flatnonzero(one).tolist()) for one in ablations.reach(threat).sets}
    for image, row in enumerate(votes.tolist()):
        assert answer.certified[image] != any(attacker_wins(row, one, classes) for one in reached)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["column", "row", "block"]), st.sampled_from(["wrap", "inside"]))
@settings(max_examples=60)
def test_slack_at_a_place_is_what_an_attacker_there_can_do(seed: int, kind: str, edges: str) -> None:
    """All touched votes for one rival, whichever is best; the weakest place is that of the rule."""
    random = np.random.default_rng(seed)
    ablations = ablations_of(WindowAblation(kind=kind, size=3, stride=2, edges=edges), 8, 8)
    votes = random.integers(0, 3, (1, ablations.num_ablations))
    votes[random.random(votes.shape) < 0.6] = 1
    ballots = Ballots.of(votes, classes=4)
    answer = exact_rule(ballots, ablations, Threat(2, 3))
    top, left = answer.places[0, 0].tolist()
    reached = ablations.touched_at(2, 3, top, left)
    slack, rival = slack_if_touched(ballots, reached)
    assert slack[0] == answer.slack[0]
    after = np.where(reached, rival[0], votes[0])
    falls = np.bincount(after, minlength=4).argmax() == rival[0]
    assert falls == (slack[0] < 0)
    for other in range(4):  # no other rival succeeds where the best one fails
        changed = np.bincount(np.where(reached, other, votes[0]), minlength=4).argmax()
        assert slack[0] < 0 or changed == ballots.tally.prediction[0]
