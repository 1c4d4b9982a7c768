"""Settings of glibc's memory allocator for tensors."""

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
LARGEST = 32 << 20  # bytes; above it glibc takes no threshold
KEPT = 1 << 30


@cache
def keep_freed_memory() -> bool:
    """Keep what is freed for the next tensor, up to 1 GiB, instead of giving it back to the kernel; whether that is so.

    By default a tensor of a few MiB that ends an update is unmapped, and the next update pays a page fault for each of
    its 4 KiB: a sixth of the time of an update with CQL. Only glibc has these switches; elsewhere nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, KEPT), (TOP_PAD, LARGEST))
    return all(mallopt(switch, value) == 1 for switch, value in wanted)
