"""Decisions and slacks about several patches against a list of every union of the sets that they touch."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Subject
from smoothcert.workers.ablations import threats as reaches
from smoothcert.workers.ablations import unions
from smoothcert.workers.ablations.kinds import RowsTimesColumns
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import Ballots, Rule, exact_rule
from smoothcert.workers.certificates.several import holds_against_several, top_k_rule_of_several
from smoothcert.workers.certificates.top_k import top_k_rule
from tests.helpers.ablations import ListedSets
from tests.helpers.votes import EveryUnion, ballots_near_the_edge, correlated_votes, geometries, threats


def _case(
    data: st.DataObject, classes: int, of: Subject, seed: int
) -> tuple[RowsTimesColumns, Threat, int, Rule, Ballots]:
    """Ablations, one to three patches, K, its rule with lists, and votes: near the edge of being certified, or such
    that those of neighbours often agree.
    """
    geometry = data.draw(geometries(longest=7) | geometries(longest=10, largest=5))
    threat = data.draw(threats(geometry, patches=2 if geometry.num_ablations > 36 else 3))
    top = data.draw(st.integers(1, classes))
    rule = top_k_rule(top, of)
    ballots = correlated_votes(geometry, classes, seed)
    if data.draw(st.booleans()):
        ballots = ballots_near_the_edge(geometry, threat, classes, seed, rule)
    return geometry, threat, top, rule, ballots


@settings(max_examples=400)
@given(st.data(), st.integers(2, 5), st.sampled_from(list(Subject)), st.integers(0, 2**32 - 1))
def test_decisions_are_those_of_a_list_of_every_union(
    data: st.DataObject, classes: int, of: Subject, seed: int
) -> None:
    """One, two and three patches, any kind of ablation, fragile votes, each K: the same images are certified."""
    geometry, threat, top, rule, ballots = _case(data, classes, of, seed)
    expected = rule(ballots, EveryUnion.of(geometry, threat), threat).certified
    assert holds_against_several(ballots, geometry, threat, top=top, of=of).tolist() == expected.tolist()


@settings(max_examples=400)
@given(st.data(), st.integers(2, 5), st.sampled_from(list(Subject)), st.integers(0, 2**32 - 1))
def test_slacks_are_those_of_a_list_of_every_union(data: st.DataObject, classes: int, of: Subject, seed: int) -> None:
    """As above, but the slack, and places of the patches that have it."""
    geometry, threat, top, rule, ballots = _case(data, classes, of, seed)
    every = EveryUnion.of(geometry, threat)
    found, expected = top_k_rule_of_several(top, of)(ballots, geometry, threat), rule(ballots, every, threat)
    assert not found.is_bound
    assert found.slack.tolist() == expected.slack.tolist()
    for image, places in enumerate(found.places):
        touched = np.any([geometry.touched_at(threat.height, threat.width, *place) for place in places], axis=0)
        lost = replace(ballots.of_images(np.array([image])), fragile=None)
        lost = replace(lost, fragile=touched[None] if ballots.fragile is None else touched | ballots.fragile[[image]])
        there = ListedSets(np.zeros((1, geometry.num_ablations), bool), np.zeros((1, 2), np.int64))
        assert rule(lost, EveryUnion(there), threat).slack == expected.slack[image]


@settings(max_examples=150)
@given(st.data(), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_the_exact_rule_needs_no_list_either(data: st.DataObject, classes: int, seed: int) -> None:
    """The slack of the exact rule against two to four patches on one axis, or two blocks, that of every union."""
    geometry = data.draw(geometries(longest=9))
    most = 4 if 1 in geometry.grid and geometry.num_ablations < 8 else 2
    threat = data.draw(threats(geometry))._replace(patches=data.draw(st.integers(2, most)))
    ballots = correlated_votes(geometry, classes, seed)
    expected = exact_rule(ballots, EveryUnion.of(geometry, threat), threat).slack
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unions, "_SHORT_LIST", 0)
        fresh = RowsTimesColumns(geometry.rows, geometry.columns)  # a geometry keeps what it knows
        found = exact_rule(ballots, fresh, threat)
    assert found.slack.tolist() == expected.tolist()


def test_no_images_have_no_slack() -> None:
    """Of no images there is no answer, and no error; a wrong number of votes is one."""
    for kind in ("column", "block"):
        geometry = RowsTimesColumns.of(WindowAblation(kind=kind, size=1), 4, 4)
        rule, num_votes = top_k_rule_of_several(2, Subject.prediction), geometry.num_ablations
        none = Ballots.of(np.zeros((0, num_votes), np.int64), classes=3)
        assert len(rule(none, geometry, Threat(1, 1, 2)).slack) == 0
        with pytest.raises(ValueError, match=f"do not fit {num_votes} ablations"):
            rule(Ballots.of(np.zeros((1, 5), np.int64), classes=3), geometry, Threat(1, 1, 2))


@pytest.mark.parametrize("numbers_at_once", [1, 200, 1000])
def test_parts_cover_all_images(monkeypatch: pytest.MonkeyPatch, numbers_at_once: int) -> None:
    """However many images are worked on together, each gets the answer that it gets alone."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="block", size=2), 5, 5)
    ballots = correlated_votes(geometry, 4, seed=1, images=200)
    together = holds_against_several(ballots, geometry, Threat(1, 1, 2), top=2, of=Subject.label)
    monkeypatch.setattr(reaches, "NUMBERS_AT_ONCE", numbers_at_once)
    apart = holds_against_several(ballots, geometry, Threat(1, 1, 2), top=2, of=Subject.label)
    assert apart.tolist() == together.tolist()
    few = ballots.of_images(slice(50))
    slack = top_k_rule_of_several(2, Subject.label)(few, geometry, Threat(1, 1, 2)).slack
    assert ((slack >= 0) == together[:50]).all()
    assert 0 < together.sum() < 200


def test_more_patches_than_places_lose_all_votes() -> None:
    """They are as many as there are places; nothing is left, unless there are no K rivals."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 4, 4)
    ballots = Ballots.of(np.zeros((1, 4), int), classes=2)
    for top, holds in ((1, False), (2, True)):
        threat = Threat(1, 1, 10**9)
        assert holds_against_several(ballots, geometry, threat, top=top, of=Subject.prediction).tolist() == [holds]
    geometry = RowsTimesColumns.of(WindowAblation(kind="block", size=1), 20, 20)
    ballots = Ballots.of(np.zeros((1, 400), int), classes=3)
    assert top_k_rule_of_several(2, Subject.prediction)(ballots, geometry, threat).slack.tolist() == [
        -399
    ]  # two rivals need a vote each


@pytest.mark.parametrize("short", [0, 1 << 19])
@pytest.mark.parametrize("kind", ["column", "block"])
def test_almost_as_many_patches_as_places(kind: str, short: int) -> None:
    """Whether their unions are listed or searched, the slack is the same, and soon found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unions, "_SHORT_LIST", short)
        geometry = RowsTimesColumns.of(WindowAblation(kind=kind, size=2), *((4, 4) if kind == "block" else (16, 16)))
        ballots, threat = correlated_votes(geometry, 4, seed=3), Threat(1, 1, 15)
        found = top_k_rule_of_several(2, Subject.label)(ballots, geometry, threat)
    lost = replace(ballots, fragile=np.ones(ballots.votes.shape, bool))
    everything = top_k_rule(2, Subject.label)(lost, geometry, Threat(1, 1))
    assert found.slack.tolist() == everything.slack.tolist()  # 15 of these 16 places touch all ablations


def test_a_larger_patch_than_the_image_is_refused() -> None:
    """As by the rules."""
    geometry = RowsTimesColumns.of(WindowAblation(kind="column", size=2), 4, 4)
    with pytest.raises(RequestError, match="patch 5 x 1"):
        holds_against_several(
            Ballots.of(np.zeros((1, 4), int), classes=2), geometry, Threat(5, 1, 2), top=1, of=Subject.prediction
        )
