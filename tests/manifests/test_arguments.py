"""Values of callers in Python: one or several; what is no number is refused in a line."""

import re
from typing import Any

import numpy as np
import pytest

from smoothcert.manifests.arguments import number, several, whole_number
from smoothcert.manifests.errors import RequestError


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (3, [3]),
        ("exact", ["exact"]),
        (np.float64(0.5), [0.5]),
        (np.array([1, 2]), [1, 2]),
        (range(2), [0, 1]),
        (np.array(4), [4]),
        ((), []),
    ],
)
def test_one_value_is_a_list_of_one(values: Any, found: list[Any]) -> None:
    """A text, too; everything else that can be listed is listed."""
    assert several(values) == found


def test_numbers_may_be_of_numpy() -> None:
    """They become numbers of Python."""
    assert (whole_number("--stride", np.int32(2)), type(whole_number("--stride", np.int32(2)))) == (2, int)
    assert (number("--tolerance", np.float32(0.5)), type(number("--tolerance", 1))) == (0.5, float)


@pytest.mark.parametrize("value", ["2", 2.0, 1.5, True, None, [2], np.float64(2)])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    """With its name."""
    with pytest.raises(RequestError, match=f"^{re.escape(f'--stride {value!r}: must be a whole number')}$"):
        whole_number("--stride", value)


@pytest.mark.parametrize("value", ["0.1", True, None, 1j])
def test_what_is_no_number_is_refused(value: Any) -> None:
    """With its name."""
    with pytest.raises(RequestError, match=f"^{re.escape(f'--tolerance {value!r}: must be a number')}$"):
        number("--tolerance", value)
