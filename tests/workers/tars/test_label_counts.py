"""Labels that are numbered differently than the network's classes are recognised; right labels raise no alarm."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from smoothcert.workers.tars.label_counts import LabelCounts
from smoothcert.workers.tars.labels import label_of
from tests.helpers.tars import images_field


def _counts(labels: Any, *answers: Any, classes: int, first_label: int = 0) -> LabelCounts:
    """Counts of labels as the tars have them."""
    images = images_field(first_label=first_label)
    read = [label_of({"cls": str(label).encode()}, images, classes) for label in labels]
    return LabelCounts.of(
        [f"{number:04d}" for number in range(len(read))],
        [error for _, error in read],
        np.array([-1 if label is None else label for label, _ in read]),
        [np.asarray(each) for each in answers],
        images=images,
        classes=classes,
    )


def _misnumbered(labels: Any, *answers: Any, classes: int, first_label: int = 0) -> str | None:
    counts = _counts(labels, *answers, classes=classes, first_label=first_label)
    return counts.misnumbered(images_field(first_label=first_label), classes)


def _predicted(truth: np.ndarray[Any, Any], accuracy: float, classes: int, seed: int) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(seed)
    return np.where(generator.random(len(truth)) < accuracy, truth, generator.integers(0, classes, len(truth)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("accuracy", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("images", [8, 32, 2000])
def test_right_labels_raise_no_alarm(images: int, classes: int, accuracy: float, seed: int) -> None:
    """Whether the network is good or guesses, and even if a few labels are one too high."""
    truth = np.random.default_rng(seed).integers(0, classes, images)
    predictions = _predicted(truth, accuracy, classes, seed + 1000)
    assert _misnumbered(truth, predictions, classes=classes) is None
    truth[: images // 100] = classes
    assert _misnumbered(truth, predictions, classes=classes) is None


@pytest.mark.parametrize("classes", [3, 10, 1000])
@pytest.mark.parametrize("answer", [0, 1, -1])
@pytest.mark.parametrize("order", [sorted, list])
def test_a_network_that_always_answers_one_class_raises_no_alarm(
    order: Callable[[Any], Any], answer: int, classes: int
) -> None:
    """Nor do the first images of a sorted data set, which have one class or two."""
    truth = order(np.random.default_rng(0).integers(0, classes, 2000).tolist())[:32]
    assert _misnumbered(truth, np.full(32, answer % classes), classes=classes) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("accuracy", [0.5, 0.9])
@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_labels_from_1_are_recognised(classes: int, accuracy: float, seed: int) -> None:
    """From the network's answers on 32 images. With first_label 1 the same labels are right."""
    truth = np.random.default_rng(seed).integers(0, classes, 32)
    predictions = _predicted(truth, accuracy, classes, seed + 1000)
    found = _misnumbered(truth + 1, predictions, classes=classes)
    assert found is not None
    assert found.startswith("labels seem to count from 1: ")
    assert found.endswith("; set images.first_label: 1")
    corrected = _counts(truth + 1, predictions, classes=classes, first_label=1)
    assert corrected.misnumbered(images_field(first_label=1), classes) is None
    assert (corrected.bad, corrected.usable) == (0, 32)


def test_labels_from_1_are_recognised_without_a_good_network() -> None:
    """From the missing class 0 and the label above the highest, if there are enough images."""
    truth = np.arange(40) % 10
    assert _misnumbered(truth + 1, np.full(40, 3), classes=10) is not None
    assert _misnumbered(truth[:12] + 1, np.full(12, 3), classes=10) is None


def test_a_background_class_is_recognised() -> None:
    """A network whose class 0 is the background gives every image the class above its label."""
    truth = np.arange(64) % 10
    found = _misnumbered(truth, truth + 1, classes=11)
    assert found is not None
    assert found.startswith("the network's classes seem to count from 1")


def test_counts_add_up() -> None:
    """The counts of two parts sum to those of the whole, wherever it is cut."""
    labels = [0, 1, 2, 3, "cat", 1, 0, 4, 2, 2]
    predictions = np.array([0, 0, 1, 3, 1, -1, 1, 2, 2, 3])
    whole = _counts(labels, predictions, classes=4)
    assert (whole.images, whole.usable, whole.bad, whole.zeros, whole.too_high_by_one, whole.agreements[0].right) == (
        10,
        8,
        2,
        2,
        1,
        3,
    )
    assert whole.first_bad == "0004: .cls is no class index: 'cat' is no whole number"
    for cut in range(11):
        parts = [_counts(labels[part], predictions[part], classes=4) for part in (slice(cut), slice(cut, None))]
        total = parts[0] + parts[1]
        assert replace(total, first_bad=whole.first_bad) == whole
        assert total.first_bad is not None


def test_the_clean_answer_is_enough() -> None:
    """A network that votes badly on ablations and well on whole images shows labels from 1, too."""
    truth = np.arange(32)
    assert _misnumbered(truth + 1, np.full(32, 7), classes=1000) is None
    found = _misnumbered(truth + 1, np.full(32, 7), truth, classes=1000)
    assert found is not None
    assert found.startswith("labels seem to count from 1: of 32 images, the network's answer is the label in 0")


def test_a_wrong_first_label_is_recognised() -> None:
    """The remedy is never the value that the job has already."""
    truth = np.arange(64) % 10
    found = _misnumbered(truth, truth, classes=10, first_label=1)
    assert found is not None
    assert found.startswith("labels seem to count from 0")
    assert found.endswith("set images.first_label: 0")
    found = _misnumbered(truth + 2, truth, classes=12, first_label=1)
    assert found is not None
    assert found.endswith("check images.first_label and model.classes")
