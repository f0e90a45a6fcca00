"""The search for the best union against a list of all unions."""

from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smoothcert.workers.ablations.search import Partial, Search, Values


@dataclass(frozen=True)
class Weighed(Partial):
    """A value is what is left of the weights: [images, things], of sets [N, things]."""

    weights: NDArray[np.float64]
    sets: NDArray[np.bool_]

    def bounds(self, sets: int, below: Values) -> Values:
        left: Values = self.weights.sum(axis=1, keepdims=True) - sets * self.weights @ self.sets.T
        return left

    def taking(self, images: NDArray[np.int64], sets: NDArray[np.int64]) -> Self:
        return type(self)(np.where(self.sets[sets], 0, self.weights[images]), self.sets)


@settings(max_examples=300)
@given(st.data(), st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 10_000]))
def test_the_smallest_value_is_that_of_a_list_of_every_union(data: st.DataObject, seed: int, at_once: int) -> None:
    """Any sets, one to four of them, whatever is tried at once; the sets that are named have the value."""
    random = np.random.default_rng(seed)
    sets = random.random((data.draw(st.integers(1, 8)), 12)) < data.draw(st.sampled_from([0.2, 0.5]))
    number = data.draw(st.integers(1, min(4, len(sets))))
    weights = random.integers(0, 4, (30, 12)).astype(np.float64)
    unions = np.array([sets[list(some)].any(axis=0) for some in combinations(range(len(sets)), number)])
    expected = (weights.sum(axis=1)[:, None] - weights @ unions.T).min(axis=1)
    known = expected + random.integers(0, 3, 30)
    found = Search(len(sets), at_once).least(Weighed(weights, sets), number, known)
    assert found.values.tolist() == expected.tolist()
    assert found.chosen.shape == (30, number)
    left = (weights * ~sets[found.chosen].any(axis=1)).sum(axis=1)
    assert (left == expected)[expected < known].all()


@pytest.mark.parametrize("enough", [10, 0])
def test_a_value_that_is_enough_ends_the_search(enough: int) -> None:
    """It need not be the smallest then."""
    sets = np.eye(6, dtype=bool)
    weights = np.array([[5.0, 4, 3, 2, 1, 1], [9, 9, 9, 9, 9, 9]])
    found = Search(6, 1, enough).least(Weighed(weights, sets), 2, np.full(2, float(enough)))
    assert found.values.tolist() == ([7, 10] if enough else [0, 0])


def test_floors_rule_sets_out() -> None:
    """A set of which no union is below the least is not tried."""
    sets, tried = np.eye(4, dtype=bool), []

    class Counted(Weighed):
        def taking(self, images: NDArray[np.int64], sets: NDArray[np.int64]) -> Self:
            tried.extend(sets.tolist())
            return super().taking(images, sets)

    weights = np.array([[4.0, 3, 2, 1]])
    floors = np.array([[3.0, 3, 9, 9]])
    found = Search(4, 1).least(Counted(weights, sets), 2, np.array([9.0]), lambda images: floors[images])
    assert (found.values.tolist(), tried) == ([3], [0])


@pytest.mark.parametrize(("number", "unions"), [(20, 1), (19, 20), (18, 190)])
def test_no_union_is_met_twice(number: int, unions: int) -> None:
    """Almost all of 20 sets of equal weights are taken in at most as many ways as there are unions of them."""
    sets, asked = np.eye(20, dtype=bool), []

    class Counted(Weighed):
        def bounds(self, sets: int, below: Values) -> Values:
            if sets == 1:
                asked.append(len(below))
            return np.where(below[:, None] > 0, -1.0, np.inf) + 0 * super().bounds(sets, below)

    Search(20, 10_000).least(Counted(np.ones((1, 20)), sets), number, np.array([1.0]))
    assert sum(asked) <= unions
