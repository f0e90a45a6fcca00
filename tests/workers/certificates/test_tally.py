"""Classes are ranked as a count by hand ranks them."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.workers.certificates.tally import count_votes


@settings(max_examples=200)
@given(st.integers(2, 6), st.lists(st.lists(st.integers(0, 5), min_size=7, max_size=7), min_size=1, max_size=5))
def test_classes_are_ranked_by_count_then_by_index(classes: int, rows: list[list[int]]) -> None:
    """Classes with votes come by count, then by index; after them the lowest class without votes, if there is one."""
    votes = np.array(rows) % classes
    tally = count_votes(votes, classes=classes)
    for row, own_classes, own_counts in zip(votes.tolist(), tally.classes, tally.counts, strict=True):
        ranked = sorted(set(row), key=lambda label: (-row.count(label), label))
        ranked += [label for label in range(classes) if label not in row][:1]
        assert own_classes.tolist() == ranked + [-1] * (len(own_classes) - len(ranked))
        assert own_counts.tolist() == [row.count(label) for label in own_classes.tolist()]


def test_tie_goes_to_the_lowest_class() -> None:
    """With equal counts the lowest class is the prediction and the next the runner-up."""
    tally = count_votes(np.array([[2, 1, 2, 1, 0]]), classes=3)
    assert tally.prediction.tolist() == [1]
    assert tally.classes[0, :3].tolist() == [1, 2, 0]
    assert tally.leads[0, :3].tolist() == [0, 0, 0]  # class 0 wins the tie that two votes more for it make


@pytest.mark.parametrize("votes", [[[0, 1, 2, 0]], [[0, -1, 0, 0]]])
def test_votes_for_no_class_are_refused(votes: list[list[int]]) -> None:
    """A vote outside the classes is a defect, never counted."""
    with pytest.raises(ValueError, match="do not fit 2 classes"):
        count_votes(np.array(votes), classes=2)


def test_many_classes_take_no_more_memory() -> None:
    """With 65,536 classes no table of images x classes is made: 2,000 images would take a gigabyte."""
    votes = np.random.default_rng(0).integers(0, 65536, (2000, 50))
    tracemalloc.start()
    tally = count_votes(votes, classes=65536)
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()
    assert (tally.counts.sum(axis=1) == 50).all()
