"""Ratios of paired measurements, with intervals: the one place where the benchmarks do statistics.

A *pair* is one interleaved cycle: both arms measured within seconds of each other, each at two places that mirror one
another, so that a machine that warms up, or a neighbour that comes and goes, meets both.  The ratio of a pair is free of
what the pair shares; pairs are averaged as logarithms, so that a ratio and its inverse weigh the same.

Intervals are 95 % bootstrap percentile intervals over whole pairs, never over the steps within one: steps next to each
other are not independent.  They are widened by √(n / (n - 1)), because the bootstrap of n values is too narrow by that
factor (Hesterberg 2015, arXiv 1411.5279).  With fewer than about eight pairs they are still on the narrow side.  The
random numbers are fixed, so the same measurements always give the same interval.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 4000
_SEED = 20_260_101


class Interval(msgspec.Struct, frozen=True):
    """An estimate and what it may be off by."""

    value: float
    low: float
    """Lower end of the 95 % interval; equal to *value* where there is one pair only."""
    high: float
    pairs: int

    def holds(self, value: float) -> bool:
        """Return whether *value* lies in the interval."""
        return self.low <= value <= self.high


def paired_ratio(strata: Sequence[Sequence[float]]) -> Interval:
    """Return the geometric mean of the ratios in *strata*, each of which (one batch size, say) weighs the same.

    Raises:
        ValueError: There is no ratio, or one is not positive.
    """
    logs = [np.log(np.asarray(ratios, np.float64)) for ratios in strata if len(ratios)]
    if not logs or not all(np.isfinite(values).all() for values in logs):
        raise ValueError(f"positive ratios are needed, not {[list(ratios) for ratios in strata]}")
    random = np.random.default_rng(_SEED)
    estimate = float(np.mean([values.mean() for values in logs]))
    resampled = np.zeros(RESAMPLES)
    for values in logs:
        picked = random.integers(0, len(values), (RESAMPLES, len(values)))
        resampled += (values[picked].mean(1) - values.mean()) * _widening(len(values)) / len(logs)
    low, high = _ends(resampled + estimate)
    return Interval(math.exp(estimate), math.exp(low), math.exp(high), sum(map(len, logs)))


def percentile_ratio(
    arm: Sequence[NDArray[np.float64]], plain: Sequence[NDArray[np.float64]], percent: float
) -> Interval:
    """Return the ratio of a percentile of *arm* to that of *plain*, both pooled over their cycles.

    The two are lists of the same cycles; a resample takes both arms of a cycle or none.

    Raises:
        ValueError: They are not of the same cycles, or one is empty.
    """
    if len(arm) != len(plain) or not arm:
        raise ValueError(f"the same cycles are needed of both arms, not {len(arm)} and {len(plain)}")

    def ratio(cycles: Sequence[int]) -> float:
        return float(np.percentile(np.concatenate([arm[cycle] for cycle in cycles]), percent)
                     / np.percentile(np.concatenate([plain[cycle] for cycle in cycles]), percent))

    random = np.random.default_rng(_SEED)
    estimate = ratio(range(len(arm)))
    resampled = np.array([ratio(random.integers(0, len(arm), len(arm)).tolist()) for _ in range(RESAMPLES // 4)])
    low, high = _ends(estimate + (resampled - estimate) * _widening(len(arm)))
    return Interval(estimate, min(low, estimate), max(high, estimate), len(arm))


def _widening(count: int) -> float:
    return math.sqrt(count / (count - 1)) if count > 1 else 1.0


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
