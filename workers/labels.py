"""Labels: from a member's text to a class, and whether labels are the classes that the network votes for.

One wrong label is a row with its reason. Labels that are wrong nearly everywhere, or lie one class beside the
network's, are a fault of the request: then no accuracy means anything. Loads no torch, for the driver judges, too.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from manifests.job import Images

Ints = NDArray[np.int64]

_WHOLE_NUMBER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)  # int() would also take 1_0 and digits of other scripts
_NEARLY_ALL = 0.9
# What makes agreement with a neighbouring class more than chance: so many images of so many classes, and so many times
# as many as agree with their own label. A network that says one class of everything agrees in one class only.
_SHIFTED_IMAGES, _SHIFTED_CLASSES, _SHIFTED_TIMES = 8, 4, 4
_IMAGES_A_CLASS = 4  # with so many, a missing class 0 beside many labels too high by one is no accident
_SHIFTS = {
    -1: ("labels seem to count from 1", "set images.first_label: 1"),
    1: ("the network's classes seem to count from 1", "check model.classes: its class 0 may be a background class"),
}


def label_of(sample: Mapping[str, Any], images: Images, classes: int) -> tuple[int | None, str | None]:
    """The class of a sample, 0 to `classes` - 1, or None; and what is wrong with its label, or None.

    Args:
        sample: its members by suffix.
        images: say where the label is.
        classes: of the network.
    """
    if images.label is None:
        return None, None
    member, _, field = images.label.partition(":")
    if member not in sample:
        return None, f"no member .{member}"
    value: Any = sample[member]
    try:
        if field:
            value = json.loads(value)[field]
        number = _whole_number(value)
    except KeyError:
        return None, f".{images.label} is no class index: there is no field {field}"
    except (ValueError, TypeError) as error:
        return None, f".{images.label} is no class index: {' '.join(str(error).split())[:160]}"
    if not 0 <= number - images.first_label < classes:
        return None, _out_of_range(number, images, classes)
    return number - images.first_label, None


def _out_of_range(number: int, images: Images, classes: int) -> str:
    first = images.first_label
    return f"label {number} is not one of the {classes} classes ({first} to {first + classes - 1})"


def _whole_number(value: Any) -> int:
    value = value.decode() if isinstance(value, bytes) else value
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    if type(value) is not int:  # a bool is an int to isinstance
        raise ValueError(f"{value!r} is no whole number")
    return value


@dataclass(frozen=True)
class LabelCounts:
    """What the labels of some images are like; counts of several sets of images add up.

    Attributes:
        images: all of them.
        usable: those with a label.
        bad: those whose label is an error.
        first_bad: key and reason of the first of these.
        zeros: those with label 0.
        too_high_by_one: those whose label is the number of classes.
        right: those whose prediction is their label.
        off: of shift -1 and 1, how many images of each class have a prediction so far from their label.
    """

    images: int = 0
    usable: int = 0
    bad: int = 0
    first_bad: str | None = None
    zeros: int = 0
    too_high_by_one: int = 0
    right: int = 0
    off: Mapping[int, Counter[int]] = field(default_factory=lambda: {-1: Counter(), 1: Counter()})

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        errors: Sequence[str | None],
        labels: Ints,
        predictions: Ints,
        *,
        images: Images,
        classes: int,
    ) -> Self:
        """Count.

        Args:
            keys: of the images.
            errors: what is wrong with the label of each, or None.
            labels, predictions: [images], -1 where an image has none.
            images, classes: of the job.
        """
        bad = [f"{key}: {error}" for key, error in zip(keys, errors, strict=True) if error is not None]
        too_high = _out_of_range(classes + images.first_label, images, classes)
        labelled = (labels >= 0) & (predictions >= 0)
        off = {shift: Counter(labels[labelled & (predictions == labels + shift)].tolist()) for shift in (-1, 1)}
        return cls(
            images=len(keys),
            usable=int((labels >= 0).sum()),
            bad=len(bad),
            first_bad=bad[0] if bad else None,
            zeros=int((labels == 0).sum()),
            too_high_by_one=sum(error == too_high for error in errors),
            right=int((labelled & (predictions == labels)).sum()),
            off=off,
        )

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        names = ("images", "usable", "bad", "zeros", "too_high_by_one", "right")
        return LabelCounts(
            **{name: getattr(self, name) + getattr(other, name) for name in names},
            first_bad=self.first_bad or other.first_bad,
            off={shift: self.off[shift] + other.off[shift] for shift in (-1, 1)},
        )

    @property
    def nearly_all_bad(self) -> bool:
        return self.bad >= _NEARLY_ALL * self.images > 0

    def misnumbered(self, classes: int) -> str | None:
        """Why the labels seem to be numbered otherwise than the network's classes, and what to do; else None."""
        for shift, (meaning, remedy) in _SHIFTS.items():
            images = self.off[shift].total()
            shifted = len(self.off[shift]) >= max(2, min(_SHIFTED_CLASSES, classes - 1))
            if shifted and images >= max(_SHIFTED_IMAGES, _SHIFTED_TIMES * self.right):
                return (
                    f"{meaning}: the prediction is the label in {self.right} of {self.images} images, and the label "
                    f"{'minus' if shift < 0 else 'plus'} 1 in {images}; {remedy}"
                )
        a_class = self.images / classes
        if a_class >= _IMAGES_A_CLASS and not self.zeros and self.too_high_by_one >= a_class / 2:
            meaning, remedy = _SHIFTS[-1]
            return (
                f"{meaning}: no image of {self.images} has the lowest label, and {self.too_high_by_one} have one above "
                f"the highest of {classes} classes; {remedy}"
            )
        return None
