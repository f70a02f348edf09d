"""Evidently's default drift test of a table whose columns are heads: the last hour against the whole baseline.

A column has drifted where the Wasserstein distance over the standard deviation of the reference passes 0.1 (the default for
references of more than 1,000 rows), the table where half of its columns have.  The share of one half is kept and the distance
tuned; the other way round there is nothing to tune, since sixty healthy windows lie further than 0.1 from their baseline.
Held against ``evidently`` by a test.

Source: evidently 0.7.23, ``_get_default_stattest`` and ``DataDriftPreset(drift_share=0.5)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.drift.peers.two_samples import EVERY, RECENT, Recent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block

_SHARE = 0.5


class Evidently:
    """The customary limit is 0.1."""

    customary = 0.1

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def learn(self, baseline: Block) -> None:
        """Take the quantiles of the baseline."""
        self._deviation = np.maximum(np.nanstd(baseline.values, axis=0), 0.001)
        self._recent = Recent(baseline.values.shape[1:])
        self._quantiles = quantile_function(baseline.values)

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return the distance that half of the heads pass, over the limit, [R]; looked at every tenth window."""
        self._recent.add(values)
        if number % EVERY:
            return np.zeros(len(values))
        distances = wasserstein(self._quantiles, self._recent.values) / self._deviation
        heads = distances.shape[1]
        passed = np.sort(distances, axis=1)[:, heads - int(np.ceil(_SHARE * heads))]
        closeness: NDArray[np.float64] = np.where(self._recent.full(), passed / self.limit, 0.0)
        return closeness

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Forget the windows."""
        self._recent.reset(replicas)


_FINE = 8
"""Points of the baseline's quantile function for each recent window: distances come within 0.01 of those of all its windows."""


def quantile_function(baseline: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quantile function of *baseline* [N, R, K] at the middles of 60 x 8 equal steps, [60, 8, R, K]."""
    levels = (np.arange(RECENT * _FINE) + 0.5) / (RECENT * _FINE)
    quantiles: NDArray[np.float64] = np.nanquantile(baseline, levels, axis=0)
    return quantiles.reshape(RECENT, _FINE, *baseline.shape[1:])


def wasserstein(quantiles: NDArray[np.float64], recent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first Wasserstein distance [R, K] between *quantiles* of the baseline and *recent* [60, R, K]."""
    return np.asarray(np.abs(quantiles - np.sort(recent, axis=0)[:, None]).mean(axis=(0, 1)))
