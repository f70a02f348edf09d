"""The signals of one scope: what their baseline knows, and the evidence against it.

The same as a stratum of heads in small: F signals, one stream each, whose rows are the requests that define the signal.  No
scale is believed that is smaller than the signal's floor: a share that was zero all day may be a hundredth tomorrow.  Two
families, with w the innovation of a signal::

    signals.mean      M of bets on w           a signal that moved
    signals.spread    M of bets on w**2 - 1    one that moves about more, or less, than it did

Cost: some thirty array operations a window, on a few dozen numbers; 96 bytes of state a signal.
Source: as for heads (:mod:`headwatch.drift.stream`, :mod:`headwatch.drift.evalue`); J. Shin, A. Ramdas, A. Rinaldo,
"E-detectors", arXiv 2203.03532.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift import cycle, slow_noise
from headwatch.drift.saved import below, prefixed
from headwatch.drift.stream import StreamBaseline, StreamMonitor, learn

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

FAMILIES = ("signals.mean", "signals.spread")
REACH = 8.0
"""Standard deviations at which the innovations of a counted signal are clipped: what all requests show pages soon."""


@dataclass(frozen=True, slots=True)
class ScopeBaseline:
    """What was learned of one scope."""

    features: tuple[str, ...]
    """Names of the signals."""
    window_seconds: float
    periods: tuple[float, ...]  # seconds, of the cycles that are known
    streams: StreamBaseline

    @property
    def families(self) -> tuple[str, ...]:
        """Return the names of the families."""
        return FAMILIES


def learn_scope(
    names: tuple[str, ...], numbers: NDArray[np.int64], window_seconds: float, values: NDArray[np.float64],
    rows: NDArray[np.float64], floor: NDArray[np.float64], counted: NDArray[np.bool_] | None = None,
) -> ScopeBaseline:
    """Return the baseline of signals *names* from windows *numbers* [N], one after the other without gaps.

    *values* [N, F, 1] are NaN and *rows* [N, F] 0 where a window does not define a signal; *floor* is [F, 1],
    *counted* [F, 1] says which signals may jump.
    """
    times = numbers.astype(np.float64) * window_seconds
    periods = cycle.known_periods(float(times[-1] - times[0]))
    reach = np.where(np.zeros(floor.shape, np.bool_) if counted is None else counted, REACH, slow_noise.CLIP)
    streams, _, _ = learn(values, rows, cycle.design(times, periods), floor=floor, reach=reach)
    return ScopeBaseline(names, window_seconds, periods, streams)


class ScopeMonitor:
    """The evidence against the baseline of one scope.  The interface is that of ``StratumMonitor``."""

    def __init__(self, baseline: ScopeBaseline) -> None:
        self.baseline = baseline
        self.number = -1
        self.streams = StreamMonitor(baseline.streams, spread=True)

    def step(
        self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64],
        covariates: NDArray[np.float64] | None = None,
    ) -> None:
        """Take the *values* [F, 1] of window *number*, means over *rows* [F] requests.  *covariates* are not used."""
        del covariates
        if 0 <= self.number < number - 1:
            self.streams.filter.skip(number - 1 - self.number)
        self.number = number
        seconds = np.array([number * self.baseline.window_seconds])
        self.streams.step(values, rows, cycle.design(seconds, self.baseline.periods)[0])

    def evidence(self) -> dict[str, NDArray[np.float64]]:
        """Return for each family the evidence of each signal, [F]."""
        assert self.streams.spread is not None  # made with it
        mean, spread = self.streams.mean.mixture(), self.streams.spread.mixture()
        return {"signals.mean": mean[:, 0], "signals.spread": spread[:, 0]}

    def reset(self, features: NDArray[np.bool_] | None = None, families: Collection[str] | None = None) -> None:
        """Forget the evidence, of all signals or of those marked [F], of all families or of those named."""
        marked = np.ones(len(self.baseline.features), bool) if features is None else features
        assert self.streams.spread is not None  # made with it
        for name, detector in zip(FAMILIES, (self.streams.mean, self.streams.spread), strict=True):
            if families is None or name in families:
                detector.reset(marked)

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that the next window depends on, by name."""
        return {"number": np.array(self.number), **prefixed("streams", self.streams.save())}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on where :meth:`save` was called, with the same baseline."""
        self.number = int(saved["number"])
        self.streams.restore(below("streams", saved))
