"""Resident memory of a process, as the kernel counts it.

Before it is read, the C library gives back what is free (``malloc_trim``): otherwise memory that the engine freed while
it loaded the model could hide what is added later.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

MIB = 1 << 20


def settled_rss_mib() -> float:
    """Return the resident memory of this process, after garbage collection and with the allocator's free memory returned."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    return rss_mib("self")


def rss_mib(process: int | str) -> float:
    """Return the resident memory of *process* (an id, or ``self``)."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
