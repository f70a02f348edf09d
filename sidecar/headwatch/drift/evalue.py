"""Evidence of one window against "nothing has changed", as e-values.

An e-value is a number that is 1 or less on average while nothing has changed, so that a large one is evidence: it may be
multiplied over time and averaged over streams, whatever the streams have to do with each other.  For an innovation w and a bet
lambda (its sign says in which direction)::

    e = exp(lambda v - |lambda| allowance - psi(lambda))

v is w for a shift of the mean and w**2 - 1 for a change of spread.  ``psi`` is the largest of what a normal w would give, what
the stream's own baseline gave (``log mean exp(lambda v)``), and what the baselines of all streams gave together, which pays for
skewed and heavy tails: a tail that one head shows in a year is known from a thousand heads in a day.

``allowance`` pays for the baseline's mean (or variance) being an estimate from N windows.  The error of the estimate is the
same in every window of a run, so a run of n windows gains ``lambda**2 n**2 error**2 / (2 N)`` on average over baselines; a page
needs about :data:`NATS` of evidence, for which a true shift takes ``n = 2 NATS / (lambda error)**2`` windows.  Up to there
``NATS / N`` a window pays for it; where two standard errors of the mean cost less, those are taken.

Where the guarantee ends: parameters are estimated, so "1 or less" holds on average over baselines and for runs of that length,
not for each stream for certain.  docs/method.md has the false alarms that were seen.

Cost: a multiplication and two subtractions a bet, stream and window; 16 bytes of baseline a bet and stream; one exponential a
bet and value when it is learned.
Source: J. Shin, A. Ramdas, A. Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", arXiv
2203.03532; A. Ramdas, P. Grünwald, V. Vovk, G. Shafer, "Game-theoretic statistics and safe anytime-valid inference",
Statistical Science 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_TINY = 1e-300


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


NATS = 12.0
"""Log of the evidence that a page takes: 1,440 windows times a hundred streams."""
_MEAN = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)
_SPREAD = (-0.5, -0.25, 0.125, 0.25)
_ENERGY = (-0.5, 0.25, 0.5, 1.0)
_LASTING = (0.25, 0.5, 1.0)
MEAN = Bets(_MEAN, tuple(bet * bet / 2.0 for bet in _MEAN), 1.0)
ENERGY = Bets(_ENERGY, tuple(bet * bet / 2.0 for bet in _ENERGY), 1.0)
"""For sums of squares: more of them is what is looked for."""
LASTING = Bets(_LASTING, tuple(bet * bet / 2.0 for bet in _LASTING), 1.0)
"""For what goes on in its own direction: a change back to what the baseline was is none."""
SPREAD = Bets(_SPREAD, tuple(map(_spread_cost, _SPREAD)), float(np.sqrt(2.0)))


def costs(bets: Bets, baseline: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return psi of each bet and stream, [B, F, K], from the baselines' values *v* [N, F, K]; NaN is missing."""
    known = ~np.isnan(baseline)
    windows = known.sum(axis=0)
    values = np.where(known, baseline, 0.0)
    found = []
    for bet, cost in zip(bets.lambdas, bets.normal, strict=True):
        gained = np.where(known, np.exp(bet * values), 0.0).sum(axis=0)  # [F, K]
        own = gained / np.maximum(windows, 1)
        together = gained.sum(axis=1, keepdims=True) / np.maximum(windows.sum(axis=1, keepdims=True), 1)
        found.append(np.maximum(cost, np.log(np.maximum(np.maximum(own, together), _TINY))))
    return np.stack(found)


def allowance(bets: Bets, windows: NDArray[np.float64], bias: NDArray[np.float64] | float = 0.0) -> NDArray[np.float64]:
    """Return what each bet gives away in a window, [B, F, K], for baselines of *windows* [F, K] windows.

    *bias* [F, K], in units of v, is what the mean may be off besides.
    """
    lambdas = np.abs(np.array(bets.lambdas))[:, None, None]
    count = np.maximum(windows, 1.0)
    allowed: NDArray[np.float64] = np.minimum(NATS / count, 2.0 * lambdas * bets.error / np.sqrt(count)) + lambdas * bias
    return allowed


def log_e(
    bets: Bets, v: NDArray[np.float64], psi: NDArray[np.float64], allowed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return log e of each bet and stream, [B, F, K], for the values *v* [F, K]; 0 (no evidence) where they are NaN.

    *psi* and *allowed* are [B, F, K].
    """
    lambdas = np.array(bets.lambdas)[:, None, None]
    known = ~np.isnan(v)
    return np.where(known, lambdas * np.where(known, v, 0.0) - allowed - psi, 0.0)
