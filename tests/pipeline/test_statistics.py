"""Intervals and tests against their definitions, and against published examples."""

from fractions import Fraction
from itertools import pairwise
from math import comb, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import beta, binom, norm

from smoothcert.pipeline.statistics import difference_interval, holm, mcnemar, mean_of, share_interval

counts = st.integers(1, 400).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@st.composite
def changes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Lost, gained, and how many images there are."""
    pairs = draw(st.integers(1, 300))
    lost = draw(st.integers(0, pairs))
    return lost, draw(st.integers(0, pairs - lost)), pairs


@given(counts, st.sampled_from([0.5, 0.95, 0.999]))
def test_an_exact_interval_ends_where_the_tails_are_half_of_what_is_left(
    counted: tuple[int, int], level: float
) -> None:
    """By the tails of the binomial, and by the quantiles of the beta distribution."""
    (count, total), tail = counted, (1 - level) / 2
    low, high = share_interval(count, total, level)
    assert low == pytest.approx(beta.ppf(tail, count, total - count + 1) if count else 0.0)
    assert high == pytest.approx(beta.ppf(1 - tail, count + 1, total - count) if count < total else 1.0)
    if count:
        assert binom.sf(count - 1, total, low) == pytest.approx(tail)
    if count < total:
        assert binom.cdf(count, total, high) == pytest.approx(tail)


def test_nothing_is_known_about_a_share_of_no_images() -> None:
    assert share_interval(0, 0) == (0.0, 1.0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_test_adds_the_probabilities_of_what_is_no_likelier(lost: int, gained: int) -> None:
    """Exactly, with fractions."""
    changed = lost + gained
    probabilities = [Fraction(comb(changed, number), 2**changed) for number in range(changed + 1)]
    expected = sum(one for one in probabilities if one <= probabilities[lost])
    assert mcnemar(lost, gained) == pytest.approx(float(expected))
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def test_the_published_example_of_paired_shares() -> None:
    """Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33, airway hyper-responsiveness: 7 and 1 of 21."""
    assert difference_interval(7, 1, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert mcnemar(7, 1) == pytest.approx(0.0703, abs=5e-5)


@given(changes())
def test_the_interval_of_a_difference_ends_where_the_score_test_rejects(changed: tuple[int, int, int]) -> None:
    """The likeliest shares for a given difference come from a search here, from a formula there."""
    lost, gained, pairs = changed
    interval = difference_interval(*changed)
    for end, sign in zip(interval, (1, -1), strict=True):
        if abs(end) < 1 - 1e-6:
            assert _score(lost, gained, pairs, end) == pytest.approx(sign * norm.ppf(0.975), rel=1e-3, abs=1e-3)


def _score(lost: int, gained: int, pairs: int, difference: float) -> float:
    """The score of a difference, with the likeliest share of losses."""
    same = pairs - lost - gained

    def unlikely(loss: float) -> float:
        terms = ((lost, loss), (gained, loss + difference), (same, 1 - 2 * loss - difference))
        return -sum(count * (log(share) if share > 0 else -inf) for count, share in terms if count)

    least, most = max(0.0, -difference), (1 - difference) / 2
    found = minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12})
    candidates = [(unlikely(loss), loss) for loss in (float(found.x), least, most)]
    loss = min(candidates)[1]
    variance = (2 * loss + difference - difference**2) / pairs
    return float(((gained - lost) / pairs - difference) / variance**0.5)


@given(changes(), st.sampled_from([0.5, 0.95]))
def test_an_interval_of_a_difference_holds_it_and_is_mirrored(changed: tuple[int, int, int], level: float) -> None:
    """With the sides swapped."""
    lost, gained, pairs = changed
    low, high = difference_interval(lost, gained, pairs, level)
    assert -1 <= low <= (gained - lost) / pairs <= high <= 1
    assert difference_interval(gained, lost, pairs, level) == pytest.approx((-high, -low), abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    """From the smallest on, each against the level divided by how many are left, up to the first that holds."""
    rejected = set()
    ordered = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, position in enumerate(ordered):
        if p_values[position] * (len(p_values) - rank) > level:
            break
        rejected.add(position)
    adjusted = holm(p_values)
    assert {position for position, value in enumerate(adjusted) if value <= level} == rejected
    assert all(adjusted[one] <= adjusted[other] for one, other in pairwise(ordered))


def test_a_mean_has_the_standard_error_of_the_textbook():
    """Of 1, 2, 3, 6: mean 3, standard deviation sqrt(14 / 3), standard error half of it."""
    assert mean_of(np.array([1.0, 2.0, 3.0, 6.0])) == pytest.approx((3, (14 / 3) ** 0.5 / 2))
    assert mean_of(np.array([4.0])) == (4, None)
