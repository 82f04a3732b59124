"""Keep memory that the network frees, instead of handing it back to the system and asking again; or do hand it back."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


@cache
def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed memory for the next batch; True where that worked.

    By default it returns every large block to the kernel, which must clear it again for the next layer; threads other
    than the first do so with arenas of their own whatever is set, and therefore share its one. With
    MobileNetV2, batch 32, 2 cores, this alone made encoding 1.6 times as fast, for an eighth more peak memory
    (`python benchmarks/encoder.py`). Holds for the whole process; does nothing with another C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all(
        bool(mallopt(name, value))
        for name, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_ARENA_MAX, 1))
    )


def give_back_freed_memory() -> None:
    """Hand back what `keep_freed_memory` kept, once work is done: for a server, which then idles for hours."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
