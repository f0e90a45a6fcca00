"""Whether labels are the classes that the network votes for.

One wrong label is a row with its reason. If nearly all labels are wrong, or lie one class beside the network's, the
request is wrong: then no accuracy means anything. Loads no torch, because the driver judges, too.

Not covered: reading a label (labels.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.job import Images
from smoothcert.workers.tars.labels import out_of_range

Ints = NDArray[np.int64]

NEARLY_ALL = 0.9
"""If at least this share of the images has one fault, the fault is in the request."""
# Agreement with a neighbouring class is more than chance if it covers at least this number of images, this number of
# classes, and this multiple of the images that agree with their own label. A network that always answers one class
# agrees in one class only.
_MIN_SHIFTED_IMAGES, _MIN_SHIFTED_CLASSES, _MIN_SHIFTED_RATIO = 8, 4, 4
# With at least this many images per class, class 0 is not missing by accident while many labels are too high by one.
_MIN_IMAGES_PER_CLASS = 4
# By the shift from label to prediction and images.first_label: what it seems to mean, and what to do.
_MEANINGS = {
    (-1, 0): ("labels seem to count from 1", "set images.first_label: 1"),
    (1, 1): ("labels seem to count from 0", "set images.first_label: 0"),
    (1, 0): (
        "the network's classes seem to count from 1",
        "check model.classes: its class 0 may be a background class",
    ),
    (-1, 1): ("labels seem to be one class too high", "check images.first_label and model.classes"),
}


@dataclass(frozen=True)
class Agreement:
    """How often a network's answers equal the labels, or the classes beside them. Agreements can be added.

    Attributes:
        right: images whose answer is their label.
        off: for the shifts -1 and 1, how many images of each label have the answer label + shift.
    """

    right: int
    off: Mapping[int, Counter[int]]

    @classmethod
    def of(cls, labels: Ints, answers: Ints) -> Self:
        """Compare labels [images] with answers [images]; -1 means none."""
        both = (labels >= 0) & (answers >= 0)
        off = {shift: Counter(labels[both & (answers == labels + shift)].tolist()) for shift in (-1, 1)}
        return cls(int((both & (answers == labels)).sum()), off)

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.right + other.right, {shift: counts + other.off[shift] for shift, counts in self.off.items()}
        )

    def shift(self, classes: int) -> int | None:
        """-1 or 1 if the answers agree with the labels only after this shift, else None."""
        min_images = max(_MIN_SHIFTED_IMAGES, _MIN_SHIFTED_RATIO * self.right)
        min_classes = max(2, min(_MIN_SHIFTED_CLASSES, classes - 1))
        for shift, counts in self.off.items():
            if counts.total() >= min_images and len(counts) >= min_classes:
                return shift
        return None


@dataclass(frozen=True)
class LabelCounts:
    """Counts of the labels of some images. Counts can be added.

    Attributes:
        images: all images.
        usable: images with a label.
        bad: images whose label is an error.
        first_bad: key and reason of the first of these.
        zeros: images with the lowest label.
        too_high_by_one: images whose label is one above the highest.
        agreements: of the labels with the prediction, and with the class of the whole image.
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
        """Count the labels of some images.

        Args:
            keys: of the images.
            errors: what is wrong with the label of each, or None.
            labels: [images], -1 for none.
            answers: of the network, [images] each, -1 for none; equally many for each set of images.
            images, classes: of the job.
        """
        bad = [f"{key}: {error}" for key, error in zip(keys, errors, strict=True) if error is not None]
        too_high = out_of_range(classes + images.first_label, images, classes)
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
        """Whether the labels as a whole are wrong, not only some of them."""
        return self.bad >= NEARLY_ALL * self.images > 0

    def misnumbered(self, images: Images, classes: int) -> str | None:
        """If labels and classes seem to be numbered differently: why, and what to do; else None."""
        return self._shifted(images, classes) or self._one_too_high(images, classes)

    def _shifted(self, images: Images, classes: int) -> str | None:
        """Whether the network's answers are the classes beside the labels."""
        for agreement in self.agreements:
            if shift := agreement.shift(classes):
                meaning, remedy = _MEANINGS[shift, images.first_label]
                return (
                    f"{meaning}: of {self.images} images, the network's answer is the label in {agreement.right}, and "
                    f"the label {'minus' if shift < 0 else 'plus'} 1 in {agreement.off[shift].total()}; {remedy}"
                )
        return None

    def _one_too_high(self, images: Images, classes: int) -> str | None:
        """Whether the lowest label is missing and many are one above the highest, for any answers of the network."""
        images_per_class = self.images / classes
        if images_per_class < _MIN_IMAGES_PER_CLASS or self.zeros or self.too_high_by_one < images_per_class / 2:
            return None
        meaning, remedy = _MEANINGS[-1, images.first_label]
        return (
            f"{meaning}: no image of {self.images} has the lowest label, and {self.too_high_by_one} have one above "
            f"the highest of {classes} classes; {remedy}"
        )
