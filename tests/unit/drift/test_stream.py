"""One stream: what its baseline may believe."""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.drift.stream import StreamMonitor, _long_run_deviation, learn

WINDOWS = 480
ROWS = np.full((WINDOWS, 2), 40.0)
NO_CAUSES = np.zeros((WINDOWS, 0))
FLOOR = np.array([[0.01], [0.01]])


def series() -> np.ndarray:
    """Return a signal that was zero all day and one that varies, [N, 2, 1]."""
    values = np.zeros((WINDOWS, 2, 1))
    values[:, 1, 0] = 0.5 + 0.05 * np.random.default_rng(1).standard_normal(WINDOWS)
    return values


def evidence(floor: np.ndarray | None, later: np.ndarray) -> np.ndarray:
    baseline, _, _ = learn(series(), ROWS, NO_CAUSES, floor=floor)
    monitor = StreamMonitor(baseline, spread=True)
    for x in later:
        monitor.step(x, ROWS[0], np.zeros(0))
    return monitor.mean.mixture()[:, 0]


def test_a_signal_that_was_constant_may_move_within_its_floor() -> None:
    later = series()[:64]
    later[:, 0] = 0.004
    assert evidence(None, later)[0] > 1e6, "without a floor a constant may never move"
    assert evidence(FLOOR, later)[0] < 200.0


def test_a_constant_signal_that_leaves_its_floor_is_found() -> None:
    later = series()[:64]
    later[:, 0] = 0.05
    assert evidence(FLOOR, later)[0] > 1e6


def test_a_floor_below_what_a_signal_does_changes_nothing() -> None:
    later = series()[:64]
    later[:, 1] += 0.05
    assert evidence(FLOOR, later)[1] == pytest.approx(evidence(None, later)[1])


def test_correlation_that_the_filter_leaves_makes_the_scale_larger() -> None:
    """The mean of many heads has so little noise that what is left of a daily cycle shows in it for hours."""
    white = np.random.default_rng(4).standard_normal((1440, 1, 4))
    left = 0.2 * np.sin(2.0 * np.pi * np.arange(1440) / 1440.0)[:, None, None]
    assert _long_run_deviation(white).max() < 1.2
    assert _long_run_deviation(white + left).min() > 1.3
