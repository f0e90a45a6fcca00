"""From the labels of a source to class numbers.

    whole numbers      are the numbers of the classes
    names              are numbered in the order of a list; without one, by alphabet, as torchvision's ImageFolder does

Not covered: lists of names (workers/tars/class_names.py).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import listed
from smoothcert.pipeline.pack.listing import Listing

NO_LABEL = -1
_WHOLE_NUMBER = re.compile(r"[+-]?\d+", re.ASCII)
_MAX_CLASSES = 65536


class Classes(NamedTuple):
    """The classes of a listing.

    Attributes:
        numbers: [images] the class of each; NO_LABEL for none.
        names: of the classes 0, 1, ...; None if only numbers are known.
        notices: what the user must know about the numbers.
    """

    numbers: NDArray[np.int32]
    names: tuple[str, ...] | None
    notices: tuple[str, ...] = ()


def number_classes(listing: Listing, known: Sequence[str] | None) -> Classes:
    """Number the classes of a listing.

    Args:
        listing: the source.
        known: names of the classes 0, 1, ... that the user gives; None to take those of the source.
    Raises:
        RequestError: a label is not in the list, or is no class number.
    """
    labels = {label for label in listing.labels if label is not None}
    notices: tuple[str, ...] = ()
    names = tuple(known) if known is not None else listing.class_names
    positions = {name: number for number, name in enumerate(names or ())}
    texts = sorted(label for label in labels if isinstance(label, str))
    if known is not None and texts and set(texts) <= positions.keys():
        number_of: dict[int | str, int] = {label: positions[label] for label in texts}
    elif all(_WHOLE_NUMBER.fullmatch(label) for label in texts):
        number_of = {label: int(label) for label in labels}
        notices = _about_numbers(texts, listing) if known is None else ()
    elif known is not None:
        unknown = [label for label in texts if label not in positions]
        raise RequestError(
            f"--classes: has no {listed(unknown)}, which the {listing.what_names_classes} name; add them"
        )
    else:
        names = tuple(texts)
        number_of = {label: number for number, label in enumerate(texts)}
        notices = _about_order(texts, listing)
    number_of = {label: number for label, number in number_of.items() if number >= 0}  # -1 often means no label
    most = _MAX_CLASSES if names is None else len(names)
    if wrong := sorted(number for number in number_of.values() if number >= most):
        classes = f"of the {most:,} classes (0 to {most - 1})" if names is not None else f"from 0 to {most - 1}"
        raise RequestError(
            f"labels: {listed(wrong)} is no class {classes}; correct the labels, or name others (--label)"
        )
    numbers = np.fromiter((number_of.get(label, NO_LABEL) for label in listing.labels), np.int32, len(listing.labels))  # type: ignore[arg-type]
    return Classes(numbers, names, notices)


def _about_numbers(texts: Sequence[str], listing: Listing) -> tuple[str, ...]:
    """Folders named 1 to 10: their numbers are not their places in alphabetical order."""
    if listing.what_names_classes != "folders" or [int(text) for text in texts] == list(range(len(texts))):
        return ()
    return (
        f"the folders {listed(texts, 3)} are named by numbers, which are taken as class numbers; a network that was "
        "trained with torchvision's ImageFolder counts folders in alphabetical order instead: name the folders in that "
        "order with --classes FILE",
    )


def _about_order(texts: Sequence[str], listing: Listing) -> tuple[str, ...]:
    """class1, class10, class2: timm's trainer sorts by number and without case."""
    if listing.what_names_classes != "folders" or sorted(texts, key=_natural) == list(texts):
        return ()
    return (
        f"the folders are numbered in alphabetical order ({listed(texts, 3)}), as torchvision's ImageFolder does; timm "
        "sorts digits by value and ignores case: if your network was trained so, name the folders in that order with "
        "--classes FILE",
    )


def _natural(text: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text.lower())]
