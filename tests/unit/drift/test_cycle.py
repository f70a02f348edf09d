"""The daily and the weekly cycle: known from two periods on, less the tenth that may be missing, and then removed."""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.drift.cycle import DAY_SECONDS, WEEK_SECONDS, known_periods
from headwatch.drift.stratum import learn_stratum

STEP = 600.0  # seconds a window
DAY = int(DAY_SECONDS / STEP)
LAYER = np.zeros(4, np.int64)


def stream(windows: int, period_seconds: float, seed: int = 7) -> np.ndarray:
    """Return [N, 1, 4] values with a cycle whose amplitude is twice the noise."""
    times = np.arange(windows) * STEP
    cycle = np.sin(2 * np.pi * times / period_seconds)
    return 0.5 + 0.01 * (2 * cycle[:, None, None] + np.random.default_rng(seed).normal(size=(windows, 1, 4)))


@pytest.mark.parametrize(
    ("days", "known"),
    [(1, set()), (1.7, set()), (1.8, {1.0}), (2, {1.0}), (7, {1.0}), (12, {1.0}), (14, {1.0, 7.0})],
)
def test_a_cycle_is_known_from_two_periods_on_less_what_may_be_missing(days, known):
    whole = {period / DAY_SECONDS for period in known_periods(days * DAY_SECONDS)}
    assert whole == known | {period / 2 for period in known}, "the second harmonic comes with the first"


@pytest.mark.parametrize(("days", "period"), [(2, DAY_SECONDS), (14, WEEK_SECONDS)])
def test_a_baseline_of_two_periods_knows_the_cycle_and_takes_it_out(days, period):
    """The last window of the second period is the last of the baseline: its span is one window short of two periods."""
    windows = days * DAY
    values, rows = stream(windows, period), np.full((windows, 1), 40.0)
    numbers = np.arange(windows)
    baseline = learn_stratum(("entropy",), LAYER, numbers, STEP, values, rows)
    assert period in baseline.periods
    without = learn_stratum(("entropy",), LAYER, numbers, 0.0, values, rows)  # windows that close by count have no time of day
    assert without.periods == ()
    assert np.all(baseline.heads.scale < 0.7 * without.heads.scale), "the cycle is no noise where it is known"
