"""Items in lists, and work that other threads do ahead of time. Python 3.12 and 3.14 have such functions.

Not covered: what the threads do.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, repeat
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items in order; the last may be shorter (itertools.batched of Python 3.12)."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def map_ahead(function: Callable[[_T], _R], items: Iterable[_T], *, threads: int, count: int) -> Generator[_R]:
    """Results in the order of the items, like Executor.map with the `buffersize` of Python 3.14.

    Args:
        function: runs in a thread for each item; its error is raised here, in its turn.
        items: taken only up to `count` beyond the results that were asked for.
        threads: threads that work at once.
        count: calls that are under way or done, but not yet asked for.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        coming = deque(pool.submit(function, item) for item in islice(remaining, count))
        while coming:
            result = coming.popleft().result()
            coming.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result


def ahead(items: Iterator[_T], count: int) -> Generator[_T]:
    """The items of an iterator, none of them None; another thread makes up to `count` before they are asked for."""
    for item in map_ahead(lambda _: next(items, None), repeat(None), threads=1, count=count):
        if item is None:
            return
        yield item
