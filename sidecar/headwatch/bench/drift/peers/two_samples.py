"""Peers that hold the last windows of a head against its baseline: PSI, and Kolmogorov-Smirnov by share of heads.

* ``Psi``: the population stability index over deciles of the baseline, page where any head passes 0.2.
* ``ShareOfHeads``: Evidently's default for a table: a column has drifted where the two-sample Kolmogorov-Smirnov test has
  p < 0.05, the table where half of its columns have.  Not held against ``evidently`` yet.

Both look at the last :data:`RECENT` windows, each window anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block

RECENT = 60
_DECILES = 10
_ENOUGH = 0.5
_REFERENCE = 1440
"""Windows of the baseline that are compared with, at most."""


class Recent:
    """The last windows of every head."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.values = np.full((RECENT, *shape), np.nan)
        self._next = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Put one window in the place of the oldest."""
        self.values[self._next % RECENT] = values
        self._next += 1

    def full(self) -> NDArray[np.bool_]:
        """Return which replicas have all windows they need, [R]."""
        enough: NDArray[np.bool_] = (~np.isnan(self.values)).mean(axis=(0, 2)) > _ENOUGH
        return enough

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Forget all windows of the replicas marked [R]."""
        self.values[:, replicas] = np.nan


class Psi:
    """The customary limit is 0.2."""

    customary = 0.2

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def learn(self, baseline: Block) -> None:
        """Take the deciles of each head."""
        values = baseline.values[-_REFERENCE:]
        self._edges = np.nanquantile(values, np.arange(1, _DECILES) / _DECILES, axis=0)  # [9, R, K]
        self._counts = np.zeros((_DECILES, *values.shape[1:]))
        self._bins = np.full((RECENT, *values.shape[1:]), -1)
        self._at = 0

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return the largest index over the limit, [R]."""
        bins = np.where(np.isnan(values), -1, (values > self._edges).sum(axis=0))
        slot = self._at % RECENT
        for decile in range(_DECILES):
            self._counts[decile] += (bins == decile).astype(np.float64) - (self._bins[slot] == decile)
        self._bins[slot] = bins
        self._at += 1
        total = self._counts.sum(axis=0)
        share = (self._counts + 0.5) / (total + 0.5 * _DECILES)
        index = ((share - 1.0 / _DECILES) * np.log(share * _DECILES)).sum(axis=0)
        largest: NDArray[np.float64] = np.where(2 * total > RECENT, index, 0.0).max(axis=1) / self.limit
        return largest

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Forget the windows."""
        self._counts[:, replicas] = 0.0
        self._bins[:, replicas] = -1


class ShareOfHeads:
    """The customary limit is 0.5 of the heads, each at p < 0.05."""

    customary = 0.5
    _P = 0.05

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def learn(self, baseline: Block) -> None:
        """Take the sorted baseline of each head."""
        values = baseline.values[-_REFERENCE:]
        self._sorted = np.sort(values, axis=0)  # NaN last
        self._known = (~np.isnan(values)).sum(axis=0)  # [R, K]
        self._recent = Recent(values.shape[1:])
        # ranks of recent values are looked up on a grid of quantiles of the baseline, which is as fine as its windows allow
        self._grid = np.nanquantile(values, np.linspace(0.0, 1.0, 201)[1:-1], axis=0)  # [199, R, K]

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return the share of heads that have drifted over the limit, [R]; looked at every tenth window."""
        self._recent.add(values)
        if number % 10:
            return np.zeros(len(values))
        recent = self._recent.values
        count = (~np.isnan(recent)).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            below = np.stack([(recent <= edge).sum(axis=0) / count for edge in self._grid])  # [199, R, K]
        levels = np.linspace(0.0, 1.0, 201)[1:-1][:, None, None]
        distance = np.abs(below - levels).max(axis=0)
        together = np.sqrt(count * self._known / np.maximum(count + self._known, 1))
        critical = np.sqrt(-0.5 * np.log(self._P / 2.0))
        drifted = np.nan_to_num(distance) * together > critical
        share: NDArray[np.float64] = np.where(self._recent.full(), drifted.mean(axis=1), 0.0) / self.limit
        return share

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Forget the windows."""
        self._recent.reset(replicas)
