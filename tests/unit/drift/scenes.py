"""Small baselines for the tests of drift: a few heads, some hundred windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift.stratum import StratumBaseline, learn_stratum

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADS = 24
FEATURES = ("entropy", "lookback")
WINDOWS = 480
LAYER = np.arange(HEADS) // 8


def healthy(windows: int, seed: int) -> NDArray[np.float64]:
    """Return values [N, F, K] of heads with levels and scales of their own."""
    random = np.random.default_rng(seed)
    level = np.linspace(0.2, 0.8, HEADS)
    return level + 0.01 * random.standard_normal((windows, len(FEATURES), HEADS))


def rows(windows: int) -> NDArray[np.float64]:
    """Return as many rows in every window, [N, F]."""
    return np.full((windows, len(FEATURES)), 40.0)


def baseline(seed: int = 1) -> StratumBaseline:
    """Return what eight hours of healthy traffic teach."""
    return learn_stratum(FEATURES, LAYER, np.arange(WINDOWS), 60.0, healthy(WINDOWS, seed), rows(WINDOWS))
