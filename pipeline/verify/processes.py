"""Files checked side by side, in processes that end with this one.

Each process reads and checks whole files, and reaches the storage by itself. What it finds comes back in the order of
the files, so the report is the same for any number of processes.

Not covered: the check of a file (files.py).
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.verify.files import CheckedFile, FileTask, check_file

THREADS_VARIABLE = "OMP_NUM_THREADS"


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_files(tasks: Sequence[FileTask], processes: int) -> Iterator[CheckedFile]:
    """Check files, at most `processes` at once.

    Args:
        tasks: the files.
        processes: how many processes check them; with 1, or with one file, this process does.
    Yields:
        The result of each, in the order of `tasks`.
    Raises:
        RequestError: the storage does not answer.
        RunError: a process was killed.
    """
    processes = min(processes, len(tasks))
    if processes <= 1:
        yield from map(check_file, tasks)
        return
    context = multiprocessing.get_context("spawn")  # not fork: this process may have threads
    here, there = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, context, initializer=_end_with_parent, initargs=(here,))
    with _one_thread_each(), here, pool, there:  # `there` closes first, which ends the processes
        try:
            yield from _results(pool, iter(tasks), pending=2 * processes)
        except BrokenProcessPool:
            raise RunError(
                "a process that checks files was killed, perhaps for want of memory; run the command again"
            ) from None


def _results(pool: Executor, tasks: Iterator[FileTask], pending: int) -> Iterator[CheckedFile]:
    """The result of each task, in order.

    Few are pending, and none is cancelled: Python 3.11 prints a traceback if a pool breaks with cancelled tasks.
    """
    futures = deque(pool.submit(check_file, task) for task in islice(tasks, pending))
    while futures:
        yield futures.popleft().result()
        futures.extend(pool.submit(check_file, task) for task in islice(tasks, 1))


def _end_with_parent(pipe: Connection) -> None:
    """End this process as soon as its parent closes the other end of the pipe, or is gone.

    An interrupt from the terminal reaches all processes. It is left to the parent, so that nothing is printed here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        try:
            pipe.recv_bytes()
        except EOFError:
            os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


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
