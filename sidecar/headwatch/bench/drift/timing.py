"""What one window costs: 5,120 heads (160 layers of 32, as a 70B model has) times six features, one stratum."""

from __future__ import annotations

import time

import numpy as np

from headwatch.bench.drift.pager import WINDOW_SECONDS
from headwatch.drift.clock import DEFAULT_FAMILIES, stratum_evidence
from headwatch.drift.stratum import StratumMonitor, learn_stratum

LAYERS, HEADS, FEATURES = 160, 32, 6
_BASELINE = 240
_WARM = 16
_ROWS = 40.0


def window_ms(windows: int) -> float:
    """Return the median time of a window in milliseconds, over *windows* windows: update and evidence of all families.

    Every 64th window closes the blocks of all scales; the median is of windows, and their mean is within a tenth of it.
    """
    random = np.random.default_rng(1)
    shape = (FEATURES, LAYERS * HEADS)
    features = tuple(f"feature {number}" for number in range(FEATURES))
    rows = np.full(FEATURES, _ROWS)
    baseline = learn_stratum(
        features, np.arange(LAYERS * HEADS) // HEADS, np.arange(_BASELINE), WINDOW_SECONDS,
        random.standard_normal((_BASELINE, *shape)), np.full((_BASELINE, FEATURES), _ROWS),
    )
    monitor = StratumMonitor(baseline)
    values = random.standard_normal((8, *shape))
    times = []
    for number in range(_WARM + windows):
        begun = time.perf_counter()
        monitor.step(_BASELINE + number, values[number % len(values)], rows)
        stratum_evidence(monitor.evidence(), DEFAULT_FAMILIES)
        times.append(time.perf_counter() - begun)
    return float(np.median(times[_WARM:]) * 1e3)
