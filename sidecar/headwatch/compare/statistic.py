"""How far the sides lie apart in each stream: a regression coefficient over a standard error that does not trust equal spreads.

For labels y (0, 1) of the units, residualised on the causes, weights w and residuals e of a stream:

    b = Σ w y e / Q,   Q = Σ w y²,   r = e - b y,   s² = Σ w r² / df
    V = λ (f₀ Q₀ + f₁ Q₁) s² / Q² + (1 - λ) Σ w² y² r² n/df / Q²,   λ = 10 / (10 + units of the smaller side)

with Q₀ and Q₁ the parts of Q on each side, and f₀ and f₁ the variance on that side over s², the mean over all heads.  Where
both sides have many units, t = b/√V is Welch's statistic, which knows the spread of each head on each side.  Where one has few,
a spread of its own would be an accident, and what one side is noisier than the other is taken from all heads together (the
shrinkage of limma, Smyth 2004, towards a common ratio).

A permutation test with a robustly studentised statistic has its level exactly where units are exchangeable, and asymptotically
also where the spreads differ (Janssen 1997; Chung and Romano 2013; DiCiccio and Romano 2017 for regression with causes).

All labellings at once: five products of [P, U] with [U, K].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.compare.streams import Streams

_PRIOR_UNITS = 10.0
_SMALLEST_INFORMATION = 1e-9
_SMALLEST_VARIANCE = 1e-6
"""Of a stream whose spread between units is 1: what float32 leaves of it after two sums."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Of P labellings and K streams, in standard deviations of a unit."""

    score: NDArray[np.float32]  # [P, K] Σ w y e = b Q
    variance: NDArray[np.float32]  # [P, K] of the score
    information: NDArray[np.float64]  # [P] Q

    def plus(self, other: Shift) -> Shift:
        """Return the shift common to both, each as much as it can tell."""
        return Shift(self.score + other.score, self.variance + other.variance, self.information + other.information)

    @property
    def t(self) -> NDArray[np.float32]:
        """Return the statistic, [P, K]."""
        return np.asarray(self.score / np.sqrt(self.variance), np.float32)

    @property
    def sensitivity(self) -> NDArray[np.float32]:
        """Return by how much a shift of one standard deviation raises the statistic, [P, K]."""
        return np.asarray(self.information[:, None] / np.sqrt(self.variance), np.float32)


def shift_of(streams: Streams, labels: NDArray[np.float64]) -> Shift:
    """Return the shift of *streams* under each of *labels* [P, U]."""
    weights, present = streams.weights, streams.present
    projected = (labels * weights) @ streams.basis
    y = np.where(present, labels - projected @ streams.basis.T, 0.0)
    weighted = weights * y
    squared = weighted * weighted
    cubed = squared * y
    information = (weighted * y).sum(axis=1)
    usable = information > _SMALLEST_INFORMATION
    inverse = np.divide(1.0, information, out=np.zeros_like(information), where=usable)

    e = streams.residuals
    square = e * e
    score = _single(weighted) @ e
    b = score * _single(inverse)[:, None]
    total = np.maximum((_single(weights) @ square)[None, :] - b * score, _SMALLEST_VARIANCE)  # [P, K] Σ w r²
    robust = (
        _single(squared) @ square - 2.0 * b * (_single(cubed) @ e) + b * b * _single((cubed * y).sum(axis=1))[:, None]
    )
    second = labels * weights
    part = (  # [P, K] Σ w r² on the second side
        _single(second) @ square - 2.0 * b * (_single(second * y) @ e) + b * b * _single((second * y * y).sum(axis=1))[:, None]
    )

    units, freedom = int(present.sum()), max(streams.freedom, 1)
    counts = labels @ present.astype(np.float64)
    share = _PRIOR_UNITS / (_PRIOR_UNITS + np.minimum(counts, units - counts))
    on_second = (part / total).mean(axis=1, dtype=np.float64)  # of Σ w r²: what the second side has, over heads
    spread = _spread(on_second, counts, units, freedom, streams.basis.shape[1])
    held = (second * y * y).sum(axis=1)
    common = spread[0] * (information - held) + spread[1] * held
    variance = _single(share * common / freedom)[:, None] * total + _single((1.0 - share) * units / freedom)[:, None] * robust
    floor = _single(np.where(usable, information * _SMALLEST_VARIANCE, 1.0))[:, None]
    return Shift(np.where(usable[:, None], score, 0.0).astype(np.float32), np.maximum(variance, floor), information)


def _spread(
    on_second: NDArray[np.float64], counts: NDArray[np.float64], units: int, freedom: int, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the variance within the first and the second side over that of both, [P] each."""
    second = np.maximum(counts - 1.0 - (columns - 1.0) * counts / units, 1.0)
    first = np.maximum(units - counts - 1.0 - (columns - 1.0) * (units - counts) / units, 1.0)
    return (1.0 - on_second) * freedom / first, on_second * freedom / second


def _single(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
