"""CUSUM, two-sided, for each head: S = max(0, S + |drift| - k), page where any S reaches h (Page 1954).

k = 0.5 is the customary allowance: best for changes of one standard deviation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.drift.peers.standard import Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block


class Cusum:
    """The customary limit h is 5."""

    customary = 5.0

    def __init__(self, limit: float, allowance: float = 0.5) -> None:
        self.limit, self._allowance = limit, allowance
        self._standard: Standard | None = None
        self._sums = np.zeros(0)

    def learn(self, baseline: Block) -> None:
        """Take means and deviations."""
        self._standard = Standard(baseline)
        self._sums = np.zeros((2, *self._standard.mean.shape))  # [2 directions, R, K]

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return the largest sum over the limit, [R]."""
        assert self._standard is not None  # it has learned
        z = np.nan_to_num(self._standard.z(values))
        self._sums = np.maximum(0.0, self._sums + np.stack([z, -z]) - self._allowance)
        largest: NDArray[np.float64] = self._sums.max(axis=(0, 2)) / self.limit
        return largest

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Start again at zero."""
        self._sums[:, replicas] = 0.0
