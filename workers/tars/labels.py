"""Labels: from a member's text to a class, and whether labels are the classes that the network votes for.

One wrong label is a row with its reason. Labels that are wrong nearly everywhere, or lie one class beside the
network's, are a fault of the request: then no accuracy means anything. Loads no torch, for the driver judges, too.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.job import Images

Ints = NDArray[np.int64]

_WHOLE_NUMBER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)  # int() would also take 1_0 and digits of other scripts
NEARLY_ALL = 0.9
"""Share of images from which on their fault is one of the request."""
_LISTED = 3  # members
# What makes agreement with a neighbouring class more than chance: so many images of so many classes, and so many times
# as many as agree with their own label. A network that says one class of everything agrees in one class only.
_SHIFTED_IMAGES, _SHIFTED_CLASSES, _SHIFTED_TIMES = 8, 4, 4
_IMAGES_A_CLASS = 4  # with so many, a missing class 0 beside many labels too high by one is no accident
_MEANINGS = {  # of a shift from label to prediction, and images.first_label: what it seems to mean, what to do
    (-1, 0): ("labels seem to count from 1", "set images.first_label: 1"),
    (1, 1): ("labels seem to count from 0", "set images.first_label: 0"),
    (1, 0): (
        "the network's classes seem to count from 1",
        "check model.classes: its class 0 may be a background class",
    ),
    (-1, 1): ("labels seem to be one class too high", "check images.first_label and model.classes"),
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
        there = sorted(name for name in sample if not name.startswith("__") and name not in images.image)
        return None, f"no member .{member}" + (f" (there is .{', .'.join(there[:_LISTED])})" if there else "")
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
    value = value.decode("utf-8-sig") if isinstance(value, bytes) else value  # Windows begins texts with a mark
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    if type(value) is not int:  # a bool is an int to isinstance
        raise ValueError(f"{value!r} is no whole number")
    return value


@dataclass(frozen=True)
class Agreement:
    """How a network's answers go with the labels; of several sets of images they add up.

    Attributes:
        right: images whose answer is their label.
        off: of shift -1 and 1, how many images of each label have an answer so far from it.
    """

    right: int
    off: Mapping[int, Counter[int]]

    @classmethod
    def of(cls, labels: Ints, answers: Ints) -> Self:
        """Compare [images] each, -1 where an image has none."""
        both = (labels >= 0) & (answers >= 0)
        off = {shift: Counter(labels[both & (answers == labels + shift)].tolist()) for shift in (-1, 1)}
        return cls(int((both & (answers == labels)).sum()), off)

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.right + other.right, {shift: counts + other.off[shift] for shift, counts in self.off.items()}
        )

    def shift(self, classes: int) -> int | None:
        """-1 or 1 if the answers agree with the labels only after such a shift, else None."""
        for shift, counts in self.off.items():
            enough = max(_SHIFTED_IMAGES, _SHIFTED_TIMES * self.right)
            if counts.total() >= enough and len(counts) >= max(2, min(_SHIFTED_CLASSES, classes - 1)):
                return shift
        return None


@dataclass(frozen=True)
class LabelCounts:
    """What the labels of some images are like; of several sets of images they add up.

    Attributes:
        images: all of them.
        usable: those with a label.
        bad: those whose label is an error.
        first_bad: key and reason of the first of these.
        zeros: those with the lowest label.
        too_high_by_one: those whose label is one above the highest.
        agreements: with the prediction, and with what the network says of the whole image.
    """

    images: int = 0
    usable: int = 0
    bad: int = 0
    first_bad: str | None = None
    zeros: int = 0
    too_high_by_one: int = 0
    agreements: tuple[Agreement, ...] = ()

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        errors: Sequence[str | None],
        labels: Ints,
        answers: Sequence[Ints],
        *,
        images: Images,
        classes: int,
    ) -> Self:
        """Count.

        Args:
            keys: of the images.
            errors: what is wrong with the label of each, or None.
            labels: [images], -1 where an image has none.
            answers: of the network, the same; as many for each set of images.
            images, classes: of the job.
        """
        bad = [f"{key}: {error}" for key, error in zip(keys, errors, strict=True) if error is not None]
        too_high = _out_of_range(classes + images.first_label, images, classes)
        return cls(
            images=len(keys),
            usable=int((labels >= 0).sum()),
            bad=len(bad),
            first_bad=bad[0] if bad else None,
            zeros=int((labels == 0).sum()),
            too_high_by_one=sum(error == too_high for error in errors),
            agreements=tuple(Agreement.of(labels, each) for each in answers),
        )

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        if not (self.images and other.images):
            return self if self.images else other
        names = ("images", "usable", "bad", "zeros", "too_high_by_one")
        return LabelCounts(
            **{name: getattr(self, name) + getattr(other, name) for name in names},
            first_bad=self.first_bad or other.first_bad,
            agreements=tuple(one + two for one, two in zip(self.agreements, other.agreements, strict=True)),
        )

    @property
    def nearly_all_bad(self) -> bool:
        return self.bad >= NEARLY_ALL * self.images > 0

    def misnumbered(self, images: Images, classes: int) -> str | None:
        """Why the labels seem to be numbered otherwise than the network's classes, and what to do; else None."""
        for agreement in self.agreements:
            if shift := agreement.shift(classes):
                meaning, remedy = _MEANINGS[shift, images.first_label]
                return (
                    f"{meaning}: of {self.images} images, the network's answer is the label in {agreement.right}, and "
                    f"the label {'minus' if shift < 0 else 'plus'} 1 in {agreement.off[shift].total()}; {remedy}"
                )
        a_class = self.images / classes
        if a_class >= _IMAGES_A_CLASS and not self.zeros and self.too_high_by_one >= a_class / 2:
            meaning, remedy = _MEANINGS[-1, images.first_label]
            return (
                f"{meaning}: no image of {self.images} has the lowest label, and {self.too_high_by_one} have one above "
                f"the highest of {classes} classes; {remedy}"
            )
        return None
