"""Choices against those of itertools."""

from itertools import combinations

import numpy as np
import pytest

from smoothcert.workers.ablations.choices import Choices


@pytest.mark.parametrize(("number", "chosen"), [(1, 1), (5, 1), (5, 2), (6, 3), (7, 6), (7, 7), (28, 3)])
def test_choices_are_numbered_in_lexicographic_order(number: int, chosen: int) -> None:
    """Numbers to members and back, in any order; if one is there twice, another completes them."""
    choices, expected = Choices(number, chosen), np.array([*combinations(range(number), chosen)])
    members = choices.members(np.arange(len(choices)))
    assert members.tolist() == expected.tolist()
    assert choices.holding(members[:, ::-1]).tolist() == [*range(len(choices))]
    things = members.copy()
    things[:, -1] = things[:, 0]
    completed = choices.members(choices.holding(things))
    assert all({*some} <= {*found} for some, found in zip(things.tolist(), completed.tolist(), strict=True))
