"""What every peer is given: heads as deviations from their baseline mean, in baseline standard deviations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block


class Standard:
    """Mean and standard deviation of each head in the baseline."""

    def __init__(self, baseline: Block) -> None:
        self.mean = np.nanmean(baseline.values, axis=0)
        self.deviation = np.nanstd(baseline.values, axis=0)

    def z(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return *values* [..., R, K] in standard deviations; a missing value stays NaN."""
        z: NDArray[np.float64] = (values - self.mean) / self.deviation
        return z
