"""Images of a megabyte come and go thirty times a second: where the C library gets memory for them, and gives it back."""
from __future__ import annotations

import ctypes

# mallopt(3) of glibc: the parameters' numbers, and the largest threshold it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_BYTES, TRIM_BYTES = 32 * 2 ** 20, 256 * 2 ** 20


def keep_freed_memory() -> bool:
    """Has malloc keep up to TRIM_BYTES of freed memory in each of its arenas, and not map blocks below MMAP_BYTES.

    By default glibc maps and unmaps every image anew, and each of its pages is cleared and faulted in again: for a raw
    640x480 image more time than its whole way through a socket takes. Other C libraries have no mallopt and stay as
    they are.

    Returns:
        Whether that was possible.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(M_MMAP_THRESHOLD, MMAP_BYTES), mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)])
