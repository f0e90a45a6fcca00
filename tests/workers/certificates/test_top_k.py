"""Top-K against an attacker that tries every assignment of the touched votes, and against the exact rule."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Subject
from smoothcert.workers.ablations import threats as reaches
from smoothcert.workers.ablations import unions
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import Ballots, exact_rule
from smoothcert.workers.certificates.top_k import (
    NEVER_LEAVES,
    labels_on_top,
    surely_hold,
    top_k_rule,
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

TOPS = (1, 2, 3)
MAX_TRIED = 5
"""Touched votes of which every assignment is tried."""


@cache
def every_assignment(votes: int, classes: int) -> NDArray[np.int64]:
    """[counts, classes]: the counts that the ways to cast so many votes give, each once."""
    assignments = np.array(list(product(range(classes), repeat=votes)), np.int64).reshape(classes**votes, votes)
    return np.unique((assignments[:, :, None] == np.arange(classes)).sum(axis=1), axis=0)


def before(counts: NDArray[np.int64], subject: int) -> NDArray[np.int64]:
    """[assignments]: how many classes come before the subject: more votes, or as many and a lower index."""
    own, classes = counts[:, [subject]], np.arange(counts.shape[1])
    return ((counts > own) | ((counts == own) & (classes < subject))).sum(axis=1)


def worst_place(votes: list[int], reached: frozenset[int], classes: int, subject: int) -> int:
    """The most classes that come before the subject after any assignment of the reached votes."""
    kept = np.bincount([vote for place, vote in enumerate(votes) if place not in reached], minlength=classes)
    return int(before(kept + every_assignment(len(reached), classes), subject).max())


def subjects_of(ballots: Ballots, of: Subject) -> list[int]:
    """The class in question of each image, -1 without a label."""
    if of == Subject.label:
        assert ballots.labels is not None
        return ballots.labels.tolist()
    return [int(np.bincount(votes).argmax()) for votes in ballots.votes]


def lost_sets(ballots: Ballots, image: int, sets: set[frozenset[int]]) -> set[frozenset[int]]:
    """The touched sets, with the fragile votes of an image."""
    fragile = frozenset() if ballots.fragile is None else frozenset(np.flatnonzero(ballots.fragile[image]).tolist())
    return {one | fragile for one in sets}


@settings(max_examples=400)
@given(st.data(), st.integers(2, 5), st.sampled_from(TOPS), st.sampled_from(list(Subject)), st.integers(0, 2**32 - 1))
def test_certified_means_that_no_attacker_pushes_the_class_out(
    data: st.DataObject, classes: int, top: int, of: Subject, seed: int
) -> None:
    """Certified iff no assignment of the votes that are touched, at any places of the patches, pushes the class out.

    6,400 tables of votes, chosen near the edge; ties, fragile votes, one and two patches, classes without votes and
    labels without votes among them.
    """
    geometry = data.draw(geometries(longest=6))
    threat = data.draw(threats(geometry))
    sets = set(touched_by_hand(geometry, threat).values())
    assume(max(map(len, sets)) <= MAX_TRIED)
    ballots = ballots_near_the_edge(geometry, threat, classes, seed, top_k_rule(top, of), tables=16)
    answers = {each: top_k_rule(each, of)(ballots, geometry, threat) for each in TOPS}
    for image, (votes, subject) in enumerate(zip(ballots.votes.tolist(), subjects_of(ballots, of), strict=True)):
        if subject < 0:
            assert not any(answer.certified[image] for answer in answers.values())
            continue
        lost = lost_sets(ballots, image, sets)
        if max(map(len, lost)) > MAX_TRIED + 2:  # many fragile votes
            continue
        worst = max(worst_place(votes, one, classes, subject) for one in lost)
        assert {each: bool(answer.certified[image]) for each, answer in answers.items()} == {
            each: worst < each for each in TOPS
        }


@cache
def splits(votes: int, classes: int) -> NDArray[np.int64]:
    """All ways to give so many votes to the classes, as counts."""
    some = [split for split in product(range(votes + 1), repeat=classes - 1) if sum(split) <= votes]
    return np.array([[*split, votes - sum(split)] for split in some])


def votes_needed(kept: NDArray[np.int64], subject: int, top: int) -> int:
    """The fewest votes that push the class out of the top, beside those that are kept."""
    return next(more for more in range(99) if before(kept + splits(more, len(kept)), subject).max() >= top)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 4), st.sampled_from(list(Subject)), st.integers(0, 2**32 - 1))
def test_slack_is_counted_at_the_weakest_place(data: st.DataObject, classes: int, of: Subject, seed: int) -> None:
    """It is the fewest votes that push the class out, less those that are lost, less one; the place named has it."""
    geometry = data.draw(geometries(longest=5, largest=3))
    threat = data.draw(threats(geometry))
    top = data.draw(st.integers(1, classes - 1))
    places = touched_by_hand(geometry, threat)
    ballots = ballots_near_the_edge(geometry, threat, classes, seed, top_k_rule(top, of)).of_images(slice(3))
    answer = top_k_rule(top, of)(ballots, geometry, threat)
    assert not answer.is_bound
    for image, (votes, subject) in enumerate(zip(ballots.votes, subjects_of(ballots, of), strict=True)):
        if subject < 0:
            continue
        slack_of = {}
        for one in lost_sets(ballots, image, set(places.values())):
            kept = np.bincount(np.delete(votes, sorted(one)), minlength=classes)
            slack_of[one] = votes_needed(kept, subject, top) - len(one) - 1
        assert answer.slack[image] == min(slack_of.values())
        weakest = sorted((int(y), int(x)) for y, x in answer.places[image])
        weakest += weakest[-1:] * (threat.patches - len(weakest))
        (at_weakest,) = lost_sets(ballots, image, {places[tuple(weakest)]})
        assert slack_of[at_weakest] == answer.slack[image]


@settings(max_examples=200)
@given(st.data(), st.integers(2, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_top_1_of_the_prediction_is_the_exact_rule(data: st.DataObject, classes: int, seed: int, bounded: bool) -> None:
    """The same certificates, with the same slack; also where patches have too many places to list."""
    geometry = data.draw(geometries())
    threat = data.draw(threats(geometry, patches=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unions, "MAX_EXACT", 0 if bounded else 1 << 24)
        fresh = RowsTimesColumns(geometry.rows, geometry.columns)  # a geometry keeps what it has listed
        ballots = ballots_near_the_edge(fresh, threat, classes, seed)
        exact = exact_rule(ballots, fresh, threat)
        found = top_k_rule(1, Subject.prediction)(ballots, fresh, threat)
    assert found.is_bound == exact.is_bound
    assert (found.certified == exact.certified).all()
    assert (found.slack == exact.slack)[exact.certified].all()
    assert (found.places == exact.places)[exact.slack > 0].all() or not exact.is_bound


@settings(max_examples=300)
@given(st.data(), st.integers(2, 5), st.sampled_from(list(Subject)), st.integers(0, 2**32 - 1))
def test_bound_for_many_patches_is_sound(data: st.DataObject, classes: int, of: Subject, seed: int) -> None:
    """Where the unions are too many to list, the slack is at most that of listing them. A larger K certifies more."""
    geometry = data.draw(geometries(longest=6))
    threat = data.draw(threats(geometry))._replace(patches=data.draw(st.integers(2, 3)))
    tops = range(1, classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unions, "MAX_EXACT", 1 << 30)
        ballots = ballots_near_the_edge(geometry, threat, classes, seed, top_k_rule(max(tops), of))
        listed = [top_k_rule(top, of)(ballots, geometry, threat) for top in tops]
        patch.setattr(unions, "MAX_EXACT", 0)
        fresh = RowsTimesColumns(geometry.rows, geometry.columns)
        bounds = [top_k_rule(top, of)(ballots, fresh, threat) for top in tops]
    is_bounded = needs_a_bound(geometry, threat)
    certified = np.zeros(len(ballots), bool)
    for exact, bound in zip(listed, bounds, strict=True):
        assert bound.is_bound == is_bounded
        assert not is_bounded or (bound.places == -1).all()
        assert (bound.slack <= exact.slack).all()
        assert (bound.certified | ~certified).all()
        certified = bound.certified


@settings(max_examples=60)
@given(st.sampled_from(list(other_kinds(8))), st.integers(1, 3), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_top_k_holds_for_any_kind_of_ablation(kind: str, side: int, classes: int, seed: int) -> None:
    """A rule knows a kind by the sets that it reaches."""
    ablations, threat = other_kinds(8)[kind], Threat(side, side)
    random = np.random.default_rng(seed)
    shape = (6, ablations.num_ablations)
    votes = np.where(random.random(shape) < 0.2, random.integers(0, classes, shape), random.integers(0, classes))
    ballots = Ballots.of(votes, classes=classes, labels=random.integers(0, classes, 6))
    reached = {frozenset(np.flatnonzero(one).tolist()) for one in ablations.reach(threat).sets}
    assume(max(map(len, reached)) <= MAX_TRIED + 3)
    for top, of in product(TOPS, Subject):
        answer = top_k_rule(top, of)(ballots, ablations, threat)
        for image, subject in enumerate(subjects_of(ballots, of)):
            worst = max(worst_place(votes[image].tolist(), one, classes, subject) for one in reached)
            assert answer.certified[image] == (worst < top)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_class_never_leaves_if_there_are_only_k(classes: int) -> None:
    """Its slack fits 32 bits; with a class more it leaves where all votes are lost."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 4, 4)
    ballots = Ballots.of(np.zeros((1, 4), np.int64), classes=classes)
    for top, slack in ((classes + 3, NEVER_LEAVES), (classes, NEVER_LEAVES)):
        assert top_k_rule(top, Subject.prediction)(ballots, geometry, Threat(4, 4)).slack.tolist() == [slack]
    assert np.int32(NEVER_LEAVES) == NEVER_LEAVES
    # Each of the other classes needs a vote, as the tie goes to class 0.
    slack = top_k_rule(classes - 1, Subject.prediction)(ballots, geometry, Threat(4, 4)).slack
    assert slack.tolist() == [classes - 1 - 4 - 1]


# A pixel is touched by 2 of the 10 columns of 2 pixels. Class 1 is the prediction.
BY_HAND = [
    ([1] * 5 + [0] * 3 + [2] * 2, 3, 1, False),  # 5:3:2 becomes 5:3:0 or 3:5:2
    ([1] * 5 + [0] * 3 + [2] * 2, 3, 2, False),  # 5:3:2 becomes 3:3:4, and class 0 wins the tie
    ([1] * 5 + [0] * 4 + [2] * 1, 3, 2, True),  # 3:4:1 at worst, and class 2 needs 3 more
    ([1] * 4 + [0] * 3 + [2] * 3, 3, 2, False),  # 2:3:3 at once
    ([1] * 5 + [0] * 5, 2, 1, False),
    ([1] * 6 + [0] * 4, 9, 2, True),  # 4:4, and class 2 needs 5 votes
]


@pytest.mark.parametrize(("votes", "classes", "top", "certified"), BY_HAND)
def test_examples_counted_by_hand_hold(votes: list[int], classes: int, top: int, certified: bool) -> None:
    """Leads and ties on 10 columns of 2 pixels, under a patch of 1 pixel."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 10, 10)
    ballots = Ballots.of(np.array([votes]), classes=classes, labels=np.array([1]))
    assert top_k_rule(top, Subject.label)(ballots, geometry, Threat(1, 1)).certified.tolist() == [certified]


def test_an_image_without_a_usable_label_is_not_certified() -> None:
    """Neither without a label, nor with one that is no class of the network; without labels there is no answer."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=1), 4, 4)
    ballots = Ballots.of(np.ones((3, 4), np.int64), classes=3, labels=np.array([-1, 3, 1]))
    assert top_k_rule(2, Subject.label)(ballots, geometry, Threat(1, 1)).certified.tolist() == [False, False, True]
    with pytest.raises(ValueError, match="needs labels"):
        top_k_rule(2, Subject.label)(Ballots.of(ballots.votes, classes=3), geometry, Threat(1, 1))


@settings(max_examples=100)
@given(st.integers(2, 6), st.lists(st.lists(st.integers(0, 5), min_size=5, max_size=5), min_size=1, max_size=6))
def test_labels_on_top_are_those_of_a_ranking(classes: int, rows: list[list[int]]) -> None:
    """Ranked by votes, then by class; each class as label, also those without votes and none."""
    votes = (np.array(rows) % classes).repeat(classes + 1, axis=0)
    labels = np.tile(np.arange(-1, classes), len(rows))
    ballots = Ballots.of(votes, classes=classes, labels=labels)
    for top in TOPS:
        ranked = [sorted(range(classes), key=lambda name: (-cast.count(name), name))[:top] for cast in votes.tolist()]
        expected = [label in first for label, first in zip(labels.tolist(), ranked, strict=True)]
        assert labels_on_top(ballots, top).tolist() == expected


@pytest.mark.parametrize("numbers_at_once", [1, 200, 1000])
def test_parts_cover_all_images(monkeypatch: pytest.MonkeyPatch, numbers_at_once: int) -> None:
    """However many images are worked on together, each gets the answer that it gets alone."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 7, 7)
    votes = (np.random.default_rng(0).random((300, 7)) ** 3 * 4).astype(np.int64)
    ballots, rule = Ballots.of(votes, classes=5), top_k_rule(2, Subject.prediction)
    together = rule(ballots, geometry, Threat(2, 2))
    monkeypatch.setattr(reaches, "NUMBERS_AT_ONCE", numbers_at_once)
    apart = rule(ballots, geometry, Threat(2, 2))
    assert (apart.slack == together.slack).all() and (apart.places == together.places).all()
    assert 0 < together.certified.sum() < 300


def test_large_counts_are_exact() -> None:
    """Of 4,356 blocks and K = 4,200 the sums exceed what float32 holds."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="block", size=1), 66, 66)
    votes = np.zeros((1, 4356), np.int64)
    votes[0, :102] = 1  # of the first two rows
    ballots = Ballots.of(votes, classes=5000)
    found = top_k_rule(4200, Subject.prediction)(ballots, geometry, Threat(1, 66))
    # In a later row the patch takes 66 of the 4,254 votes of class 0. Then class 1 needs 4,087 votes, and each of 4,199
    # others 4,189, as ties go to class 0.
    slack = 4087 + 4199 * 4189 - 66 - 1
    assert int(np.float32(slack)) != slack
    assert found.slack.tolist() == [slack]


def test_votes_of_other_ablations_and_larger_patches_are_refused() -> None:
    """As by the exact rule."""
    geometry, rule = RowsTimesColumns.of(WindowAblation(kind="column", size=1), 4, 4), top_k_rule(2, Subject.prediction)
    with pytest.raises(ValueError, match="do not fit 4 ablations"):
        rule(Ballots.of(np.zeros((1, 5), np.int64), classes=3), geometry, Threat(1, 1))
    with pytest.raises(RequestError, match="patch 5 x 1"):
        rule(Ballots.of(np.zeros((1, 4), np.int64), classes=3), geometry, Threat(5, 1))


def test_no_images_have_no_certificates() -> None:
    """Of no images there is no answer, and no error."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=1), 4, 4)
    none = Ballots.of(np.zeros((0, 4), np.int64), classes=3)
    assert len(top_k_rule(2, Subject.prediction)(none, geometry, Threat(1, 1)).slack) == 0


@pytest.mark.parametrize("tolerance", [False, True])
@pytest.mark.parametrize("of", list(Subject))
def test_the_heaviest_pairs_certify_many_images(of: Subject, tolerance: bool) -> None:
    """What they say of two patches is what a list of every union says."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 24, 24)
    threat, found = Threat(3, 2, 2), np.zeros(2, int)
    for seed, top in product(range(20), TOPS):
        ballots = correlated_votes(geometry, 5, seed, images=50)
        if not tolerance:
            ballots = replace(ballots, fragile=None)
        sure = surely_hold(ballots, geometry.reach(threat), top, of)
        certified = top_k_rule(top, of)(ballots, EveryUnion.of(geometry, threat), threat).certified
        assert (certified | ~sure).all()
        found += sure.sum(), certified.sum()
    assert found[0] > 0.5 * found[1]
