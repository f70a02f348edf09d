"""How far the sides lie apart in each stream: a regression coefficient over a standard error that does not trust equal spreads.

For labels y (0, 1) of the units, residualised on the causes, weights w and residuals e of a stream:

    b = Σ w y e / Q,   Q = Σ w y²,   r = e - b y,   s² = Σ w r² / df
    V = λ (f₀ Q₀ + f₁ Q₁) s² / Q² + (1 - λ) Σ w² y² r² n/df / Q²,   λ = 10 / (10 + units of the smaller side)

with Q₀ and Q₁ the parts of Q on each side, and f₀ and f₁ the variance on that side over s², the mean over all heads.  Where
both sides have many units, t = b/√V is Welch's statistic, which knows the spread of each head on each side.  Where one has few,
a spread of its own would be an accident, and what one side is noisier than the other is taken from all heads together, or from
all signals (the shrinkage of limma, Smyth 2004, towards a common ratio).

A permutation test with a robustly studentised statistic has its level exactly where units are exchangeable, and asymptotically
also where the spreads differ (Janssen 1997; Chung and Romano 2013; DiCiccio and Romano 2017 for regression with causes).

All labellings at once: five products of [P, U] with [U, K].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.compare.streams import Streams

_PRIOR_UNITS = 10.0
_PRIOR_FREEDOM = 4.0
"""Degrees of freedom with which the spreads are taken as equal: a side with one or two units in a stratum tells nothing of its
own."""
_SMALLEST_INFORMATION = 1e-9
_SMALLEST_VARIANCE = 1e-6
"""Of a stream whose spread between units is 1: what float32 leaves of it after two sums."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Of P labellings and K streams, in standard deviations of a unit."""

    score: NDArray[np.float32]  # [P, K] Σ w y e = b Q
    variance: NDArray[np.float32]  # [P, K] of the score; 0 where the stream never varies
    information: NDArray[np.float64]  # [P] Q

    def plus(self, other: Shift) -> Shift:
        """Return the shift common to both, each as much as it can tell."""
        return Shift(self.score + other.score, self.variance + other.variance, self.information + other.information)

    @property
    def first(self) -> Shift:
        """Return the shift under the first labelling alone: the observed one."""
        return Shift(self.score[:1], self.variance[:1], self.information[:1])

    @property
    def t(self) -> NDArray[np.float32]:
        """Return the statistic, [P, K]."""
        return np.asarray(self.score / np.sqrt(np.where(self.variance > 0, self.variance, 1.0)), np.float32)

    @property
    def sensitivity(self) -> NDArray[np.float32]:
        """Return by how much a shift of one standard deviation raises the statistic, [P, K]."""
        root = np.sqrt(np.where(self.variance > 0, self.variance, np.inf))
        return np.asarray(self.information[:, None] / root, np.float32)


@dataclass(frozen=True, slots=True)
class Spread:
    """How much of the variance each side has, under P labellings."""

    first: NDArray[np.float64]  # [P] variance within the first side over that within both
    second: NDArray[np.float64]  # [P]


def shift_of(streams: Streams, labels: NDArray[np.float64], spread: Spread | None = None) -> Shift:
    """Return the shift of *streams* under each of *labels* [P, U]; *spread* is that of its own streams where none is given."""
    work = _Work(streams, labels)
    spread = work.spread() if spread is None else spread
    held = (work.second * work.y**2).sum(axis=1)
    common = spread.first * (work.information - held) + spread.second * held
    share = _PRIOR_UNITS / (_PRIOR_UNITS + np.minimum(work.counts, work.units - work.counts))
    robust = work.squares_of(work.weighted**2)
    variance = _single(share * common / work.freedom)[:, None] * work.total
    variance += _single((1.0 - share) * work.units / work.freedom)[:, None] * robust
    floor = _single(np.where(work.usable, work.information * _SMALLEST_VARIANCE, 1.0))[:, None]
    variance = np.where(streams.varying, np.maximum(variance, floor), 0.0).astype(np.float32)
    return Shift(np.where(work.usable[:, None], work.score, 0.0).astype(np.float32), variance, work.information)


def spread_of(streams: Streams, labels: NDArray[np.float64]) -> Spread:
    """Return how the variance of *streams* divides between the sides, the mean over those that vary."""
    return _Work(streams, labels).spread()


def mean_spread(spreads: Sequence[Spread]) -> Spread:
    """Return the mean of *spreads*: what figures that were counted on the same requests have in common."""
    return Spread(np.mean([one.first for one in spreads], axis=0), np.mean([one.second for one in spreads], axis=0))


class _Work:
    """What shift and spread share."""

    def __init__(self, streams: Streams, labels: NDArray[np.float64]) -> None:
        weights, present = streams.weights, streams.present
        self._streams = streams
        self._e, self._square = streams.residuals, streams.residuals * streams.residuals
        projected = (labels * weights) @ streams.basis
        self.y = np.where(present, labels - projected @ streams.basis.T, 0.0)
        self.weighted = weights * self.y
        self.second = labels * weights
        self.information = (self.weighted * self.y).sum(axis=1)
        self.usable = self.information > _SMALLEST_INFORMATION
        self.units, self.freedom = int(present.sum()), max(streams.freedom, 1)
        self.counts = labels @ present.astype(np.float64)
        self.score = _single(self.weighted) @ self._e
        inverse = np.divide(1.0, self.information, out=np.zeros_like(self.information), where=self.usable)
        self._b = self.score * _single(inverse)[:, None]
        whole = (_single(weights) @ self._square)[None, :] - self._b * self.score
        self.total = np.maximum(whole, _SMALLEST_VARIANCE)  # [P, K] Σ w r²

    def squares_of(self, weights: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return Σ weights r², [P, K], for *weights* [P, U]."""
        first = weights * self.y
        mixed, last = _single(first) @ self._e, _single((first * self.y).sum(axis=1))[:, None]
        return np.asarray(_single(weights) @ self._square - 2.0 * self._b * mixed + self._b * self._b * last, np.float32)

    def spread(self) -> Spread:
        """Return how the variance divides between the sides."""
        varying = self._streams.varying
        if not varying.any():
            return Spread(np.ones(len(self.counts)), np.ones(len(self.counts)))
        part = np.clip(self.squares_of(self.second) / self.total, 0.0, 1.0)[:, varying].mean(axis=1, dtype=np.float64)
        causes = (self._streams.basis.shape[1] - 1.0) / self.units
        others = self.units - self.counts
        second, first = (np.maximum(count * (1.0 - causes) - 1.0, 0.0) for count in (self.counts, others))
        return Spread(*(
            (share * self.freedom + _PRIOR_FREEDOM) / (freedom + _PRIOR_FREEDOM)
            for share, freedom in ((1.0 - part, first), (part, second))
        ))  # fmt: skip


def _single(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
