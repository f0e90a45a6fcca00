"""Keep freed memory in the process, because asking the system for it again is slow."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MAX_BYTES = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let this process keep what it frees from now on. Only glibc can do this; other C libraries are left as they are.

    glibc returns large blocks to the system when they are freed. Layers free and request the same few megabytes again
    and again, and the system clears every page each time. That takes up to a third of the time of a small network on a
    CPU. The process then holds its peak memory until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _MAX_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAX_BYTES)
