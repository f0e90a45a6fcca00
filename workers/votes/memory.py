"""Memory that is freed stays with the process."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MOST = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for good; with other C libraries than glibc nothing changes.

    glibc gives large blocks back to the system as they are freed. Layers free and ask for the same few megabytes all
    the time, and the system clears them, page by page, each time: up to a third of the time of a small network on a
    CPU. What the process holds is then its peak, not its present need.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _MOST)
        mallopt(_M_MMAP_THRESHOLD, _MOST)
