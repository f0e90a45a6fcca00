"""Lists of items, and work ahead of time: order, errors, and how far ahead."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.workers.iteration import ahead, batched, map_ahead


@given(st.lists(st.integers()), st.integers(1, 7))
def test_batches_hold_all_items_in_order(items: list[int], size: int) -> None:
    """All but the last have the size, and none is empty."""
    lists = list(batched(items, size))
    assert [item for each in lists for item in each] == items
    assert all(len(each) == size for each in lists[:-1])
    assert all(lists)


def test_results_keep_the_order_of_the_items() -> None:
    """Even if a later call ends first."""
    assert list(map_ahead(lambda s: time.sleep(s) or s, [0.05, 0.0, 0.01], threads=3, count=3)) == [0.05, 0.0, 0.01]


def test_no_more_than_asked_is_done_ahead() -> None:
    """Of endless items, `count` are taken beside the one in use, and nothing is left at work at the end."""
    taken = []
    with closing(map_ahead(taken.append, count(), threads=2, count=3)) as results:
        for _ in range(5):
            next(results)
    assert sorted(taken) == list(range(5 + 3))  # two threads take turns as they like


def test_an_error_is_raised_in_its_turn() -> None:
    """The results before it come first."""
    results = map_ahead(lambda number: 1 // number, [1, 0, 1], threads=1, count=3)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_another_thread_makes_the_items() -> None:
    """All of them, in order; an error of the iterator is raised here."""

    def made():
        yield threading.get_ident()
        yield 2
        raise ValueError("broken")

    items = ahead(made(), 2)
    assert next(items) != threading.get_ident()
    assert next(items) == 2
    with pytest.raises(ValueError, match="broken"):
        next(items)
    assert list(ahead(iter([1, 2, 3]), 2)) == [1, 2, 3]


def test_ahead_keeps_order_and_errors():
    """Items come in order, an error where it happened; and an end that comes early is clean."""

    def numbers() -> Iterator[int]:
        yield from range(1, 6)
        raise ValueError("after five")

    items = ahead(numbers(), 2)
    assert [next(items) for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="after five"):
        next(items)
    items = ahead(numbers(), 2)
    assert next(items) == 1
    items.close()
