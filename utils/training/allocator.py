"""A setting of the C library that makes training on a CPU faster: keep freed memory for the next tensors.

By default glibc returns every large buffer to the system when it is freed. The system must then map and clear each
page of the next buffer. A training step frees and allocates gigabytes.
"""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
OWN_SETTINGS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Stop glibc from returning freed memory to the system; True on success.

    False on systems without glibc, and where the environment already sets malloc's options or another allocator.
    The process then stays as large as its peak, so call it only before long work and before the first tensors.
    Child processes do not inherit the setting.
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in OWN_SETTINGS):
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Map no buffer separately (glibc refuses a threshold above 32 MiB), and never trim the heap.
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
