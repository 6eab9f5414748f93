"""What becomes of freed memory: glibc's settings, for the tensors that PyTorch puts on a processor."""

from __future__ import annotations

import ctypes
import os

KEPT = 1 << 30
"""Bytes, at most, that are free and kept; and the smallest block that is asked of the system for itself alone."""

_OLD_GLIBC = 1 << 25  # before 2.35 it takes no larger threshold

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

_SETTINGS = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"


def keep_freed() -> bool:
    """Keep what is freed for what is allocated next, up to ``KEPT``; true if the allocator obeys.

    By itself glibc hands large blocks back at once, and the system has to clear the pages of the next ones: a third of
    the time of a flow over drug-like molecules. Another allocator, or one that the environment has set up, is left
    as it is.
    """
    if any(name in os.environ for name in _SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; TypeError: Windows has no library without a name
        return False
    large = mallopt(_MMAP_THRESHOLD, KEPT) or mallopt(_MMAP_THRESHOLD, _OLD_GLIBC)
    return bool(large and mallopt(_TRIM_THRESHOLD, KEPT))
