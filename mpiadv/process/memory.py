"""Memory that a process has freed: kept for the next use. Knows nothing of what it holds."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's `mallopt`."""

KEPT_BYTES = 256 * 2**20
"""How much is kept."""

LARGEST_KEPT_BYTES = 32 * 2**20
"""Blocks up to this size are kept, the largest that glibc takes: features of a batch often fit."""

_OWN_CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed instead of giving it back; whether it does.

    A pass through a network frees what the next one takes again. Given back, every page of it is
    cleared by the kernel before it comes again, for a tenth of the time on a CPU. It is as it was
    where the environment chooses, and with a C library that has no such choice.
    """
    if any(name in os.environ for name in _OWN_CHOICES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = ((_MMAP_THRESHOLD, LARGEST_KEPT_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES))
    return all(bool(mallopt(name, value)) for name, value in settings)
