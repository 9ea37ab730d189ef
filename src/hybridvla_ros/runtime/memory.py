"""Memory for images: a megabyte each, thirty times a second. Where the C library gets it, and when it returns it."""
from __future__ import annotations

import ctypes

# mallopt(3) of glibc: the parameters' numbers, and the largest threshold that it accepts.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_BYTES, TRIM_BYTES = 32 * 2 ** 20, 256 * 2 ** 20


def keep_freed_memory() -> bool:
    """Makes malloc keep up to TRIM_BYTES of freed memory in each of its arenas, and not map blocks below MMAP_BYTES.

    By default glibc maps and unmaps every image anew, and each of its pages is cleared and faulted in again: for a raw
    640x480 image that takes more time than the whole way through a socket. Other C libraries have no mallopt and are
    left unchanged.

    Returns:
        Whether that was possible.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(M_MMAP_THRESHOLD, MMAP_BYTES), mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)])
