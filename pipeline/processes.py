"""Work side by side, in processes that end with this one.

Each process gets the function when it starts, and then item after item. Results come in the order of the items, so what
is made of them is the same for any number of processes.

Not covered: the work, and whether there is enough of it.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from smoothcert.manifests.errors import RunError, SmoothcertError

THREADS_VARIABLE = "OMP_NUM_THREADS"
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # "QUOTA PERIOD", in microseconds of CPU time and of time

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_function: Callable[[Any], Any]
"""What this process was started for."""


def count_cores() -> int:
    """Cores that this process may use, at least 1: by its affinity and, in a container, by its limit of CPU time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        quota, period = map(int, _CPU_LIMIT.read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


def map_in_processes(
    function: Callable[[_Item], _Result], items: Iterable[_Item], processes: int
) -> Generator[tuple[_Item, _Result]]:
    """Call a function for each item, in several processes at once.

    Args:
        function: can be pickled, as its results can. It is sent once to each process.
        items: can be pickled. They are taken only up to twice as many as processes beyond the results.
        processes: how many there are; with 1, this process works. Several import the calling script again, so a script
            must start its work under `if __name__ == "__main__":`.
    Yields:
        Each item and its result, in the order of the items.
    Raises:
        SmoothcertError: what the function raises, or the items, in its turn.
        RunError: a process ended early.
    """
    if processes <= 1:
        for item in items:
            yield item, function(item)
        return
    context = multiprocessing.get_context("spawn")  # not fork: this process may have threads
    here, there = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(here, function))
    resource_tracker.ensure_running()  # its start would end `_interrupts_wait`
    with _one_thread_each(), here, pool, there:  # `there` closes first, which ends the processes
        try:
            yield from _results(pool, iter(items), pending=2 * processes)
        except BrokenProcessPool:
            raise RunError(
                "a process ended early; give this command more memory, or, if a script called it, start the script's "
                'work under `if __name__ == "__main__":`'
            ) from None


def _results(pool: Executor, items: Iterator[_Item], pending: int) -> Iterator[tuple[_Item, Any]]:
    """Each item and its result, in order; the error of an item that cannot be had comes after the results before it.

    Few are pending, and none is cancelled: Python 3.11 prints a traceback if a pool breaks with cancelled tasks.
    """
    submitted: deque[tuple[_Item, Future[Any]]] = deque()
    error: SmoothcertError | None = None
    is_last = False
    while submitted or not is_last:
        try:
            while not is_last and len(submitted) < pending:
                item = next(items)
                with _interrupts_wait():
                    submitted.append((item, pool.submit(_call, item)))  # may start a process
        except StopIteration:
            is_last = True
        except SmoothcertError as raised:
            is_last, error = True, raised
        if submitted:
            item, future = submitted.popleft()
            yield item, future.result()
    if error is not None:
        raise error


def _call(item: Any) -> Any:
    return _function(item)


def _begin(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Keep the function. End this process as soon as its parent closes the other end of the pipe, or is gone.

    An interrupt from the terminal reaches all processes. It is left to the parent, so that nothing is printed here.
    """
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for systems where `_interrupts_wait` does nothing
    _function = function

    def wait() -> None:
        try:
            pipe.recv_bytes()
        except EOFError:
            os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Interrupts reach this process afterwards. Processes that start meanwhile get none, not even while they start."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start meanwhile compute with one thread each: there are as many processes as cores."""
    before = os.environ.get(THREADS_VARIABLE)
    os.environ[THREADS_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS_VARIABLE]
        else:
            os.environ[THREADS_VARIABLE] = before
