"""Keeping freed memory in the process, so that chance does not decide who pays for getting it again.

glibc gives large blocks back to the system as soon as they are freed, and those at the end of its heap; the next step
then pays for every page anew. Whose arrays lie where depends on who allocated first: between equal contenders it made
5 % of difference in the backward pass of a detector on a CPU. GPU memory has an allocator of its own and is not meant.
"""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, for the rest of the process; return whether it does (glibc only)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
