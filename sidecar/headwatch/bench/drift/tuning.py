"""The limit at which a peer pages as often as is promised: tuned once, on the null families, the worst of them deciding.

A peer is let run without ever starting again, and how close it was to a page is kept for each window.  The time until it first
passes a limit is then known for every limit at once; the pages per window of a limit are the replicas that passed it over the
windows that they were watched until then (the maximum likelihood estimate where pages come at a constant rate).  The limit is
the smallest with which no family has more pages than allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.drift.contest import closeness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.bench.drift.contest import Watch
    from headwatch.bench.drift.peers import Peer


def tuned(peer: Peer, watches: Sequence[Watch], windows: int, pages_per_window: float) -> dict[str, float]:
    """Return the limit of *peer* by null family; the largest of them is the one that keeps all."""
    return {
        watch.family: smallest_limit(closeness(watch, windows, peer(1.0)), pages_per_window) for watch in watches
    }


def smallest_limit(passed: NDArray[np.float64], pages_per_window: float) -> float:
    """Return the smallest limit that *passed* [N, R], closeness to a limit of 1, reaches no more often than allowed."""
    candidates = np.unique(np.maximum.accumulate(passed, axis=0))
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        if rate(passed, float(candidates[middle])) <= pages_per_window:
            high = middle
        else:
            low = middle + 1
    return float(candidates[low])


def rate(passed: NDArray[np.float64], limit: float) -> float:
    """Return pages a window, of first pages alone."""
    over = passed >= limit
    paged = over.any(axis=0)
    watched = np.where(paged, over.argmax(axis=0) + 1, len(over))
    return float(paged.sum() / watched.sum())
