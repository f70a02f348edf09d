"""What the laws of detectors are tried on: the heads of a stratum, and the signals of a scope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift.scope import ScopeBaseline, ScopeMonitor, learn_scope
from headwatch.drift.stratum import StratumBaseline, StratumMonitor

from . import scenes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from headwatch.drift.parts import Monitor
    from headwatch.drift.slow_noise import Filter

SIGNALS = ("document_mass", "grounding_ratio", "instruction_focus")


@dataclass(frozen=True)
class Subject:
    """A baseline of :data:`scenes.WINDOWS` windows, and windows that could follow.  A standard deviation is 0.01."""

    baseline: StratumBaseline | ScopeBaseline
    make: Callable[..., Monitor]
    healthy: Callable[[int, int], NDArray[np.float64]]
    """Windows and seed to values [N, F, K]."""
    rows: NDArray[np.float64]
    mean: str
    """The family that gathers level by level."""

    @property
    def nothing(self) -> NDArray[np.float64]:
        """Return the values of a window in which nothing is defined, [F, K]."""
        return np.full(self.healthy(1, 0)[0].shape, np.nan)

    def fed(self, values: NDArray[np.float64], first: int = scenes.WINDOWS) -> Monitor:
        """Return a monitor that has taken *values*."""
        monitor = self.make(self.baseline)
        for number, window in enumerate(values, first):
            monitor.step(number, window, self.rows)
        return monitor


def heads() -> Subject:
    """Return heads, with all their pools."""
    return Subject(scenes.baseline(), StratumMonitor, scenes.healthy, scenes.rows(1)[0], "heads.mean")


def signals() -> Subject:
    """Return three signals of one scope."""
    count = scenes.WINDOWS
    learned = learn_scope(
        SIGNALS, np.arange(count), 60.0, healthy_signals(count, 1), np.full((count, len(SIGNALS)), 12.0),
        np.full((len(SIGNALS), 1), 1e-3),
    )  # fmt: skip
    return Subject(learned, ScopeMonitor, healthy_signals, np.full(len(SIGNALS), 12.0), "signals.mean")


def healthy_signals(windows: int, seed: int) -> NDArray[np.float64]:
    """Return values [N, F, 1] of signals with levels of their own."""
    level = np.linspace(0.3, 0.6, len(SIGNALS))[:, None]
    noise: NDArray[np.float64] = level + 0.01 * np.random.default_rng(seed).standard_normal((windows, len(SIGNALS), 1))
    return noise


def foreseen(monitor: Monitor) -> Filter:
    """Return what foresees the slow part of the single streams."""
    return (monitor.heads if isinstance(monitor, StratumMonitor) else monitor.streams).filter
