"""The daily and the weekly cycle of a stream, where the baseline is long enough to know them.

A daily cycle of half a standard deviation that nobody removes gives hundreds of false alarms for each one promised.  It is
known from two days on, the weekly one from two weeks on, each less the tenth that
:mod:`headwatch.drift.course` lets be missing; before, the slow part of :mod:`headwatch.drift.slow_noise` has to follow it.  Two
harmonics of each.

Cost: four to eight numbers a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DAY_SECONDS = 86_400.0
WEEK_SECONDS = 7 * DAY_SECONDS
_PERIODS_NEEDED = 1.8


def known_periods(span_seconds: float) -> tuple[float, ...]:
    """Return the periods (seconds) of the harmonics that a baseline of *span_seconds* can know."""
    return tuple(
        period / harmonic
        for period in (DAY_SECONDS, WEEK_SECONDS)
        if span_seconds >= _PERIODS_NEEDED * period
        for harmonic in (1, 2)
    )


def design(times_seconds: NDArray[np.float64], periods: tuple[float, ...]) -> NDArray[np.float64]:
    """Return cosine and sine of each period at each time, [N, 2 x periods]."""
    if not periods:
        return np.zeros((len(times_seconds), 0))
    angle = 2.0 * np.pi * times_seconds[:, None] / np.array(periods)
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
