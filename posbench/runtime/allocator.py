"""Keeps the memory of freed tensors in the process, on systems with glibc.

A training step frees and requests the same buffers again. By default glibc returns the large ones to the system each
time, and the system fills each page with zeros before the process gets it back.
"""

from __future__ import annotations

import ctypes
import os

# Parameters of mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
MIB = 1 << 20
# Larger buffers, such as those of evaluation at long contexts, go back to the system when they are freed.
# Before 2.35 glibc refuses more than 32 MiB.
LARGEST = 64 * MIB, 32 * MIB
KEPT, GROWTH = 1024 * MIB, 16 * MIB


def keep_freed_memory() -> bool:
    """Keeps up to KEPT bytes of freed buffers for the next ones; returns False if it changes nothing.

    Environment variables of glibc's allocator (MALLOC_..., GLIBC_TUNABLES) take precedence.
    """
    library = _glibc()
    if library is None or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    # Setting one of them ends glibc's own adaptation of all, so the first must be accepted.
    if not any(library.mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST):
        return False
    return all(library.mallopt(name, size) for name, size in ((M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, GROWTH)))


def release_freed_memory() -> None:
    """Returns freed memory to the system."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
