"""Memory of freed tensors, kept for the next ones: a setting of the C library for training on a CPU.

glibc gives every large buffer back to the system when it is freed, and each page of the next one is
zeroed and mapped again when it is first touched. A training step frees and takes gigabytes.
"""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
OWN_SETTINGS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to its peak; True where that is now so.

    Nothing is changed, and the answer is False, off glibc and where the environment already names settings of
    malloc or another allocator. The process no longer shrinks after its peak, so call it only to train or to
    segment much, before the first tensors. Processes started from here do not inherit it.
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in OWN_SETTINGS):
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # no mapping of its own for any buffer (a threshold would be refused above 32 MiB); never trim the heap
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
