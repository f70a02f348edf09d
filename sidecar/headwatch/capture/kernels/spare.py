"""Which processors the engine leaves free, so that summaries may be computed there while it goes on.

vLLM keeps its worker off one core, for its scheduler and its API server.  The scheduler polls there while a step runs, but
gives way at each turn (vLLM 0.32 ``shm_broadcast.SpinCondition``), so that core has time to give.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from pathlib import Path

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def spare_processors(engine: set[int], threads: int) -> set[int]:
    """Return the processors for one thread beside an engine of *threads* threads on the processors *engine*; empty: none."""
    return choose_processors(allowed_processors(), engine, threads, siblings(engine), quota())


def choose_processors(
    allowed: set[int], engine: set[int], threads: int, siblings: set[int], quota: float | None
) -> set[int]:
    """Return the processors of *allowed* that are free, if any.

    *siblings* share their core with one of the engine's, whose threads wait for the slowest of them: these are never taken.
    *quota*: how many processors' time the container may use, None: no limit; what exceeds it would be taken from the engine.
    """
    if quota is not None and quota < threads + 1:
        return set()
    if engine >= allowed:  # not bound: the system moves threads to where there is room
        return set(allowed) if threads < len(allowed) else set()
    return allowed - engine - siblings


def allowed_processors() -> set[int]:
    """Return the processors that the server may use; empty where the system does not say.

    The process of a worker was bound by vLLM when it started, that of the scheduler, which is its parent, was not.
    """
    if not hasattr(os, "sched_getaffinity"):
        return set()
    with suppress(OSError):
        return os.sched_getaffinity(os.getppid() if multiprocessing.parent_process() is not None else 0)
    return set()


def siblings(processors: set[int]) -> set[int]:
    """Return all processors on the cores of *processors*, these included."""
    found = set(processors)
    for processor in processors:
        with suppress(OSError, ValueError):
            found |= numbers(Path(_SIBLINGS.format(processor)).read_text())
    return found


def numbers(text: str) -> set[int]:
    """Return the numbers of a list as the kernel writes it, such as ``0-3,8``.

    Raises:
        ValueError: It is none.
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def quota(path: Path = _QUOTA) -> float | None:
    """Return how many processors' time this container may use; None where it has no limit or does not know it."""
    with suppress(OSError, ValueError, IndexError):
        limit, period = path.read_text().split()[:2]
        return None if limit == "max" else int(limit) / int(period)
    return None
