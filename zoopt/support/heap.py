"""Keeps freed memory for the next step instead of returning it to the system."""

from __future__ import annotations

import ctypes
import os
import platform

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_LARGEST_MMAP_THRESHOLD, _NEVER = 32 << 20, -1

_OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for reuse instead of returning it to the system.

    A forward pass on a CPU allocates and frees the same megabytes in every operation. glibc returns
    much of it each time, and the system zeroes every page when it is touched again. The command
    line calls this function; your own program may call it before tuning. The process then stays at
    its peak size. Blocks above 32 MiB are still returned, the maximum of glibc's M_MMAP_THRESHOLD
    (https://man7.org/linux/man-pages/man3/mallopt.3.html).

    Returns:
        Whether memory is kept: False if the C library is not glibc, or if the environment sets
        MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ or GLIBC_TUNABLES. An empty GLIBC_TUNABLES
        disables this function and changes nothing else.

    >>> import zoopt
    >>> kept = zoopt.keep_freed_memory()
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _NEVER)
    )
