"""The largest certified patch, against a search that tries each in turn."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.workers.certificates.largest import high_strips, largest_certified, squares, wide_strips
from smoothcert.workers.certificates.rules import exact_rule, margin_rule
from tests.helpers.votes import ballots_near_the_edge, geometries


@settings(max_examples=200)
@given(st.data(), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_largest_are_those_of_a_linear_search(data: st.DataObject, classes: int, seed: int) -> None:
    """Largest squares and strips are what trying each in turn finds: a certificate implies all smaller ones."""
    geometry = data.draw(geometries(longest=7))
    family = data.draw(st.sampled_from([squares, wide_strips, high_strips]))(geometry)
    ballots = ballots_near_the_edge(geometry, family[data.draw(st.integers(0, len(family) - 1))], classes, seed)
    for rule in (exact_rule, margin_rule):
        held = np.array([rule(ballots, geometry, threat).certified for threat in family])
        assert (held == held.cumprod(axis=0)).all()
        assert largest_certified(rule, ballots, geometry, family).tolist() == held.sum(axis=0).tolist()
