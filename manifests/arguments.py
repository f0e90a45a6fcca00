"""Values as a caller in Python gives them: one or several, whole or not."""

from numbers import Integral, Real
from typing import Any

from smoothcert.manifests.errors import RequestError


def several(values: Any) -> list[Any]:
    """The values; a single one, such as a number or a text, is a list of one."""
    try:
        return [values] if isinstance(values, str) else [*values]
    except TypeError:
        return [values]


def whole_number(name: str, value: Any) -> int:
    """A value that is a whole number, of Python or NumPy.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise RequestError(f"{name} {value!r}: must be a whole number")
    return int(value)


def number(name: str, value: Any) -> float:
    """A value that is a number, of Python or NumPy.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise RequestError(f"{name} {value!r}: must be a number")
    return float(value)
