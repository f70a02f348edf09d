"""Three sigma: page where any head is further from its mean than so many standard deviations (Shewhart 1931)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.drift.peers.standard import Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block


class ThreeSigma:
    """The customary limit is 3."""

    customary = 3.0

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._standard: Standard | None = None

    def learn(self, baseline: Block) -> None:
        """Take means and deviations."""
        self._standard = Standard(baseline)

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return the furthest head over the limit, [R]."""
        assert self._standard is not None  # it has learned
        furthest: NDArray[np.float64] = np.nan_to_num(np.abs(self._standard.z(values))).max(axis=1) / self.limit
        return furthest

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Do nothing: it remembers nothing."""
