"""Population stability index of each head's last hour against deciles of its baseline, page where any passes 0.2.

The threshold is that of credit scoring, where samples have thousands of rows; with sixty windows the index of an unchanged
head is about 0.15 already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.drift.peers.two_samples import EVERY, Recent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block

DECILES = 10
_PRIOR = 0.5


class Psi:
    """The customary limit is 0.2."""

    customary = 0.2

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def learn(self, baseline: Block) -> None:
        """Take the deciles of each head."""
        self._edges = np.nanquantile(baseline.values, np.arange(1, DECILES) / DECILES, axis=0)  # [9, R, K]
        self._recent = Recent(baseline.values.shape[1:])

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return the largest index over the limit, [R]; looked at every tenth window."""
        self._recent.add(values)
        if number % EVERY:
            return np.zeros(len(values))
        index = stability(self._edges, self._recent.values).max(axis=1) / self.limit
        closeness: NDArray[np.float64] = np.where(self._recent.full(), index, 0.0)
        return closeness

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Forget the windows."""
        self._recent.reset(replicas)


def stability(edges: NDArray[np.float64], recent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the index [R, K] of *recent* [n, R, K] against a baseline with deciles at *edges* [9, R, K]."""
    above = np.stack([(recent > edge).sum(axis=0) for edge in edges])  # [9, R, K] values above each edge
    ends = np.concatenate([np.full((1, *above.shape[1:]), len(recent)), above, np.zeros((1, *above.shape[1:]))])
    share = (ends[:-1] - ends[1:] + _PRIOR) / (len(recent) + _PRIOR * DECILES)
    index: NDArray[np.float64] = ((share - 1.0 / DECILES) * np.log(share * DECILES)).sum(axis=0)
    return index
