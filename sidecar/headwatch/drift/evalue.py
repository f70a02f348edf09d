"""Evidence of one window against "nothing has changed", as e-values.

An e-value is a number that is 1 or less on average while nothing has changed, so that a large one is evidence: it may be
multiplied over time and averaged over streams, whatever the streams have to do with each other.  For an innovation w and a bet
lambda (its sign says in which direction)::

    e = exp(lambda v - |lambda| allowance - psi(lambda))

v is w for a shift of the mean and w**2 - 1 for a change of spread.  ``psi`` is the larger of what a normal w would give and
what the baseline gave itself (``log mean exp(lambda v)``), which pays for skewed and heavy tails; ``allowance`` pays for the
baseline's mean (or variance) being an estimate from N windows, two standard errors of it: ``2 / sqrt(N)`` and
``2 sqrt(2 / N)``.

Where the guarantee ends: parameters are estimated, so "1 or less" holds up to two standard errors for each stream and not for
certain.  docs/adr/0010-pooled-evidence.md has the false alarms that were seen.
Source: Shin, Ramdas, Rinaldo, "E-detectors", arXiv 2203.03532; Ramdas et al., "Game-theoretic statistics and safe anytime-valid
inference", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Bets:
    """The lambdas of one kind of change, and what each costs on normal data."""

    lambdas: tuple[float, ...]
    normal: tuple[float, ...]
    """log E exp(lambda v) for a standard normal w."""
    error: float
    """Standard error of the mean of v for a baseline of one window."""


def _spread_cost(bet: float) -> float:
    return float(-bet - 0.5 * np.log1p(-2.0 * bet))


_MEAN = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)
_SPREAD = (-0.5, -0.25, 0.125, 0.25)
_ENERGY = (-0.5, -0.25, 0.25, 0.5)
MEAN = Bets(_MEAN, tuple(bet * bet / 2.0 for bet in _MEAN), 1.0)
ENERGY = Bets(_ENERGY, tuple(bet * bet / 2.0 for bet in _ENERGY), 1.0)
"""For sums of squares: large bets are paid by their tails alone, which a baseline does not know well."""
SPREAD = Bets(_SPREAD, tuple(map(_spread_cost, _SPREAD)), float(np.sqrt(2.0)))


def costs(bets: Bets, baseline: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return psi of each bet and stream, [B, F, K], from the baseline's own values *v* [N, F, K]; NaN is missing."""
    known = ~np.isnan(baseline)
    windows = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, baseline, 0.0)
    return np.stack([
        np.maximum(cost, np.log(np.maximum(np.where(known, np.exp(bet * values), 0.0).sum(axis=0) / windows, 1e-300)))
        for bet, cost in zip(bets.lambdas, bets.normal, strict=True)
    ])


def allowance(bets: Bets, windows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return two standard errors of the mean of v, for baselines of *windows* (any shape) windows."""
    allowed: NDArray[np.float64] = 2.0 * bets.error / np.sqrt(np.maximum(windows, 1.0))
    return allowed


def log_e(
    bets: Bets, v: NDArray[np.float64], psi: NDArray[np.float64], allowed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return log e of each bet and stream, [B, F, K], for the values *v* [F, K]; 0 (no evidence) where they are NaN."""
    lambdas = np.array(bets.lambdas)[:, None, None]
    known = ~np.isnan(v)
    return np.where(known, lambdas * np.where(known, v, 0.0) - np.abs(lambdas) * allowed - psi, 0.0)
