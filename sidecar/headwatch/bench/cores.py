"""The cores that an arm may use: where work that is done elsewhere must not count as free.

A client process that summarises what was copied out of the engine costs the engine nothing while a core is idle, and a
machine that serves has none.  So everything of every arm (engine, sender, sidecar, client, transformers) is kept on the
cores on which the engine computes, unless the caller wants to see the other case.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headwatch.bench.engine import server_threads

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def engine_cores(*, spread: bool = False) -> Iterator[int]:
    """Keep this process, and all that it starts, on as many cores as the engine has threads; yield their number.

    *spread*: on all cores that this process may use.  Where the system has no affinity (macOS) nothing is kept anywhere.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield os.cpu_count() or 1
        return
    before = os.sched_getaffinity(0)
    if spread:
        yield len(before)
        return
    kept = set(sorted(before)[: server_threads()])
    os.sched_setaffinity(0, kept)
    try:
        yield len(kept)
    finally:
        os.sched_setaffinity(0, before)
