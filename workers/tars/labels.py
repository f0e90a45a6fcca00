"""A sample's label: from a member's text to a class.

A wrong label is an error of its row, never of the shard. The text of the error is stored with the row. Loads no torch.

Not covered: whether labels and classes are numbered alike (label_counts.py).
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from smoothcert.manifests.job import Images
from smoothcert.manifests.names import one_line

_WHOLE_NUMBER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)  # int() would also take 1_0 and digits of other scripts
_MAX_LISTED_MEMBERS = 3
_MAX_ERROR_CHARACTERS = 160


class Label(NamedTuple):
    """A label: the class, or None; and what is wrong with it, or None. Both are None in a job without labels."""

    number: int | None
    error: str | None


def label_of(sample: Mapping[str, Any], images: Images, classes: int) -> Label:
    """The label of a sample, a class from 0 to `classes` - 1.

    Args:
        sample: its members by suffix.
        images: section of the job that says where the label is.
        classes: of the network.
    """
    if images.label is None:
        return Label(None, None)
    member, _, field = images.label.partition(":")
    if member not in sample:
        return Label(None, f"no member .{member}{_other_members(sample, images)}")
    if images.label_names is not None:
        return _by_name(sample[member], field, images.label_names)
    try:
        number = _whole_number(json.loads(sample[member])[field] if field else sample[member])
    except KeyError:
        return Label(None, f".{images.label} is no class index: there is no field {field}")
    except (ValueError, TypeError) as error:
        reason = one_line(error, _MAX_ERROR_CHARACTERS)
        return Label(None, f".{images.label} is no class index: {reason}")
    if not 0 <= number - images.first_label < classes:
        return Label(None, out_of_range(number, images, classes))
    return Label(number - images.first_label, None)


def _by_name(content: bytes, field: str, names: str | tuple[str, ...]) -> Label:
    assert isinstance(names, tuple), "label_names is resolved when a run is planned (class_names.py)"
    try:
        value = json.loads(content)[field] if field else content.decode("utf-8-sig")
        return Label(_numbers(names)[value.strip()], None)
    except KeyError as error:
        return Label(None, f"label {one_line(error, _MAX_ERROR_CHARACTERS)} is not one of images.label_names")
    except (ValueError, TypeError, AttributeError) as error:
        return Label(None, f"the label is no name: {one_line(error, _MAX_ERROR_CHARACTERS)}")


@lru_cache(maxsize=4)
def _numbers(names: tuple[str, ...]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def out_of_range(number: int, images: Images, classes: int) -> str:
    """The error of a label that is a whole number but not a class."""
    first = images.first_label
    return f"label {number} is not one of the {classes} classes ({first} to {first + classes - 1})"


def _other_members(sample: Mapping[str, Any], images: Images) -> str:
    """The members that may hold the label instead, in brackets."""
    others = sorted(name for name in sample if not name.startswith("__") and name not in images.image)
    return f" (there is .{', .'.join(others[:_MAX_LISTED_MEMBERS])})" if others else ""


def _whole_number(value: Any) -> int:
    value = value.decode("utf-8-sig") if isinstance(value, bytes) else value  # Windows begins texts with a BOM
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    if type(value) is not int:  # a bool is an int to isinstance
        raise ValueError(f"{value!r} is no whole number")
    return value
