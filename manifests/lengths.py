"""Lengths of changes of pixels, as files and command lines have them."""

from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _from_fraction(value: Any) -> Any:
    """The number of a text such as 4/255; other values stay."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError("should be a number, or a fraction such as 4/255") from None


Length = Annotated[float, Field(gt=0), BeforeValidator(_from_fraction)]
"""A length in pixel values from 0 to 1: a number, or a fraction such as 4/255."""
