"""Page-Hinkley for each head, two-sided, as river has it: deviations from a running mean, less delta, with forgetting.

river's own runs one value of one stream at a time, which for a hundred heads and weeks of windows would take days; this is its
recursion for all heads at once, held against river's by a test.  It is given the baseline, which helps it: its running mean
begins as that of all windows of the baseline.

Source: river.drift.PageHinkley 0.26; Page 1954, Hinkley 1971.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.drift.peers.standard import Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block


class PageHinkley:
    """The customary limit is 50, delta 0.005, alpha 0.9999, no alarm in the first 30 values."""

    customary = 50.0
    _DELTA = 0.005
    _ALPHA = 0.9999
    _FIRST = 30

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._standard: Standard | None = None

    def learn(self, baseline: Block) -> None:
        """Take means and deviations, and as many windows into the running mean."""
        self._standard = Standard(baseline)
        self.begin(self._standard.mean.shape)
        self._seen += (~np.isnan(baseline.values)).sum(axis=0)

    def begin(self, shape: tuple[int, ...]) -> None:
        """Know nothing of *shape* heads."""
        self._seen = np.zeros(shape)
        self._mean = np.zeros(shape)
        self._up, self._down = np.zeros(shape), np.zeros(shape)
        self._low, self._high = np.full(shape, np.inf), np.full(shape, -1.0)

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return the largest excursion over the limit, [R]."""
        assert self._standard is not None  # it has learned
        largest: NDArray[np.float64] = self.excursion(self._standard.z(values)).max(axis=1) / self.limit
        return largest

    def excursion(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take one value of each head; return how far each has gone from its lowest or highest point."""
        known = ~np.isnan(z)
        z = np.where(known, z, self._mean)
        self._seen += known
        self._mean += (z - self._mean) / np.maximum(self._seen, 1.0)
        away = z - self._mean
        self._up = np.where(known, self._ALPHA * self._up + away - self._DELTA, self._up)
        self._down = np.where(known, self._ALPHA * self._down + away + self._DELTA, self._down)
        self._low, self._high = np.minimum(self._low, self._up), np.maximum(self._high, self._down)
        excursion = np.maximum(self._up - self._low, self._high - self._down)
        return np.where(self._seen >= self._FIRST, excursion, 0.0)

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Start again as new."""
        for state in (self._seen, self._mean, self._up, self._down):
            state[replicas] = 0.0
        self._low[replicas], self._high[replicas] = np.inf, -1.0
