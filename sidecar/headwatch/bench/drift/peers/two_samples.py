"""The last windows of every head, as peers that hold two samples against each other want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECENT = 60
"""Windows: an hour of traffic."""
EVERY = 10
"""Windows between two looks."""


class Recent:
    """The last :data:`RECENT` windows of R replicas, missing ones left out."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.values = np.full((RECENT, *shape), np.nan)
        self._count = np.zeros(shape[0], np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Put one window [R, K] in the place of the oldest."""
        known = np.flatnonzero(~np.isnan(values).any(axis=1))
        self.values[self._count[known] % RECENT, known] = values[known]
        self._count[known] += 1

    def full(self) -> NDArray[np.bool_]:
        """Return which replicas have all windows they need, [R]."""
        return self._count >= RECENT

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Forget all windows of the replicas marked [R]."""
        self._count[replicas] = 0
