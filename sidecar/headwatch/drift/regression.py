"""What known causes do to a stream: the cycle of the day, the length of the contexts, the position of the rows.

Strata hold length equal within a factor of two; what is left is taken out by a regression on the mean of the window's
rows, one slope a stream, learned on the baseline.  A cause is never followed beyond what the baseline saw of it: its values
are held inside the range of the baseline, so that a slope that was learned from noise cannot be multiplied by a leap.

Cost: one product of a few numbers a stream and window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RANGE = (0.01, 0.99)
"""Quantiles of the baseline between which a cause is followed."""


@dataclass(frozen=True, slots=True)
class Regression:
    """Slopes of C causes for F x K streams."""

    centre: NDArray[np.float64]  # [C] mean of each cause
    low: NDArray[np.float64]  # [C]
    high: NDArray[np.float64]  # [C]
    slopes: NDArray[np.float64]  # [C, F, K]

    def expected(self, causes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what *causes* [..., C] add to the mean of each stream, [..., F, K]."""
        held = np.asarray(np.clip(causes, self.low, self.high) - self.centre, np.float64)
        return np.asarray(np.tensordot(np.nan_to_num(held), self.slopes, axes=1), np.float64)


def fit(series: NDArray[np.float64], causes: NDArray[np.float64]) -> Regression:
    """Return the slopes of *causes* [N, C] in *series* [N, F, K] with mean 0, by least squares.

    A missing value (NaN) counts as the mean, which can only make a slope smaller.
    """
    windows, features, streams = series.shape
    count = causes.shape[1]
    if not count:
        none = np.zeros(0)
        return Regression(none, none, none, np.zeros((0, features, streams)))
    centre = np.asarray(np.nanmean(causes, axis=0), np.float64)
    low, high = (np.asarray(np.nanquantile(causes, edge, axis=0), np.float64) for edge in _RANGE)
    held = np.nan_to_num(np.clip(causes, low, high) - centre)
    slopes = np.asarray(np.linalg.lstsq(held, np.nan_to_num(series.reshape(windows, -1)), rcond=None)[0], np.float64)
    return Regression(centre, low, high, slopes.reshape(count, features, streams))
