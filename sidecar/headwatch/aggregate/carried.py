"""What heads move, for one stratum of an open window: shares of value mass as histograms, norms of outputs as means.

Kept apart from the other features because only some engines send it: 560 bytes for each of ten kinds, layer and head (1.5 MiB
for a model of 30 layers and 9 heads, 5.5 MiB for one of 32 and 32), and nothing where no frame carries value masses.
A norm is no share and fits no fixed buckets, so its mean is all that is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.histogram import HistogramBlock
from headwatch.model import VALUE_FEATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.aggregate.places import Places
    from headwatch.aggregate.values import CarriedValues

_BLOCK_ROWS = 32


class CarriedCell:
    """The value masses of one stratum."""

    def __init__(self, layers: int, heads: int) -> None:
        self.block = HistogramBlock(len(VALUE_FEATURES) * layers * heads)
        self._shape = (layers, heads)
        self._waiting: list[NDArray[np.float32]] = []
        self._weights: list[int] = []
        self._norm = np.zeros(self._shape, np.float64)
        self._norm_weight = np.zeros(self._shape, np.float64)

    def add(self, carried: CarriedValues, weight: int, places: Places) -> None:
        """Add one row that stands for *weight* rows, which has the heads at *places*."""
        full = np.full((len(VALUE_FEATURES), *self._shape), np.nan, np.float32)
        full[:, places.layers, places.heads] = carried.share
        self._waiting.append(full.reshape(-1))
        self._weights.append(weight)
        if len(self._waiting) >= _BLOCK_ROWS:
            self.flush()
        defined = ~np.isnan(carried.norm)
        self._norm[places.layers, places.heads] += np.where(defined, carried.norm, 0.0) * weight
        self._norm_weight[places.layers, places.heads] += defined * weight

    def flush(self) -> None:
        """Count the rows that wait."""
        if self._waiting:
            self.block.observe(np.stack(self._waiting), np.array(self._weights, np.int64))
            self._waiting.clear()
            self._weights.clear()

    def norm_mean(self) -> NDArray[np.float32]:
        """Return the mean norm of each head's output, [L, H]; NaN where no row had one."""
        with np.errstate(invalid="ignore"):
            return (self._norm / self._norm_weight).astype(np.float32)
