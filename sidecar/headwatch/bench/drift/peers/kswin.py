"""KSWIN for each head: Kolmogorov-Smirnov between the last 30 windows and 30 drawn from the 70 before (Raab et al. 2020).

river's own takes 0.2 ms a head and window; this is the same test for all heads at once, held against river's by a test.  The
draw is one for all heads of a window.  It is given the last windows of the baseline, so that it is awake from the first on.

The exact p-value of two samples of 30 has thirty steps, the smallest of them 2e-17; the closeness is that of its logarithm.
Source: river.drift.KSWIN 0.26.
"""

from __future__ import annotations

from math import comb, log
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block

WINDOW = 100
SAMPLE = 30
_SEED = 1


class Kswin:
    """The customary limit is -ln of alpha = 0.005."""

    customary = -log(0.005)

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._surprise = -np.log(p_values(SAMPLE))

    def learn(self, baseline: Block) -> None:
        """Take the last windows."""
        self._random = np.random.default_rng(_SEED)
        replicas, heads = baseline.values.shape[1:]
        self._kept = np.full((replicas, WINDOW, heads), np.nan)
        self._count = np.zeros(replicas, np.int64)
        for values in baseline.values[-2 * WINDOW :]:
            self._keep(values)

    def _keep(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = ~np.any(np.isnan(values), axis=1)
        self._kept[known, :-1] = self._kept[known, 1:]
        self._kept[known, -1] = values[known]
        self._count[known] += 1
        return known

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return the most surprising head's -ln p over the limit, [R]."""
        ready = self._keep(values) & (self._count >= WINDOW)
        closeness = np.zeros(len(values))
        if ready.any():
            drawn = self._random.choice(WINDOW - SAMPLE, SAMPLE, replace=False)
            kept = self._kept[ready]
            measure = distance if self._surprise[SAMPLE - 1] >= self.limit else apart
            steps = measure(kept[:, drawn], kept[:, -SAMPLE:]).max(axis=1)
            closeness[ready] = self._surprise[steps] / self.limit
        return closeness

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Keep the recent windows alone, as river does."""
        self._count[replicas] = SAMPLE


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the Kolmogorov-Smirnov distance of two samples [R, n, K] of the same size, times n, [R, K]."""
    size = one.shape[1]
    together = np.ascontiguousarray(np.concatenate([one, other], axis=1).swapaxes(1, 2))
    order = np.argsort(together, axis=2)
    steps = np.cumsum(np.where(order < size, 1, -1), axis=2, dtype=np.int64)
    furthest: NDArray[np.int64] = np.abs(steps).max(axis=2)
    return furthest


def apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return n where two samples [R, n, K] lie wholly apart and 0 elsewhere, [R, K]: all that the strictest limit asks for."""
    wholly = (one.max(axis=1) < other.min(axis=1)) | (one.min(axis=1) > other.max(axis=1))
    return np.where(wholly, one.shape[1], 0)


def p_values(size: int) -> NDArray[np.float64]:
    """Return the exact two-sided p of a distance of 0, 1/size, …, 1 between two samples of *size* (Hodges 1958)."""
    total = comb(2 * size, size)
    return np.array([_paths_that_leave(size, steps) / total for steps in range(size + 1)])


def _paths_that_leave(size: int, steps: int) -> int:
    """Return how many of the orders of two samples of *size* lead at least *steps* apart, by the reflection principle."""
    if steps == 0:
        return comb(2 * size, size)
    terms = (comb(2 * size, size - k * steps) * (1 if k % 2 else -1) for k in range(1, size // steps + 1))
    return 2 * sum(terms)
