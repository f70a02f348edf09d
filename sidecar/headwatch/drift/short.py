"""What a short baseline costs: bets are charged for the scale and the mean that a few dozen windows tell badly.

The costs of :mod:`headwatch.drift.evalue` hold for baselines of :data:`LONG` windows and more.  Demonstrations and recordings
that close windows by count learn from thirty or forty, and of a thousand streams the worst is then off by four standard
errors of its scale and of its mean, in every window that follows.  So each bet pays as if the variance were larger, and the
mean off, by so many standard errors more than those of a long baseline::

    psi(lambda) + lambda**2 (v - 1) / 2 + |lambda| m      v = (1 + 4 s)**2, m = 2 sqrt(2) s, s = 1/sqrt(2 N) - 1/sqrt(2 LONG)

and bets on the spread as if the variance were v where they bet on more, and (1 - 4 s)**2 where they bet on less.  Families of
spread are not used at all below :data:`SPREAD_WINDOWS`: they stand and fall with the scale.

Measured (270 independent heads x 6 features, one in 500 windows promised, 60 windows after the baseline, 10 runs each): runs
with a false page without this, 10 of 10 at 30 windows, 8 at 40, 5 at 60, 1 at 120; with it 0, 0, 1, 0.  A shift of one standard
deviation in all heads still pages in the second window.  It errs on the slow side for few heads; a longer baseline is the cure.

Cost: none after learning.
Source: the standard errors of a mean and of a standard deviation of normal values; how many of them was measured, as above.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift import evalue
from headwatch.drift.scope import ScopeBaseline

if TYPE_CHECKING:
    from headwatch.drift.stratum import StratumBaseline
    from headwatch.drift.stream import StreamBaseline

LONG = 480
SPREAD_WINDOWS = 240
_SCALE_ERRORS = 4.0
_MEAN_ERRORS = 2.0
_LEAST_SCALE = 0.3
_MOST_VARIANCE = 1.9
"""Beyond 2 the largest bet on more spread would cost infinitely much."""


def charged(baseline: StratumBaseline | ScopeBaseline, windows: int) -> StratumBaseline | ScopeBaseline:
    """Return *baseline*, learned from *windows* windows, with the costs of its bets raised where these are few."""
    if windows >= LONG:
        return baseline
    if isinstance(baseline, ScopeBaseline):
        return replace(baseline, streams=_charged(baseline.streams, windows))
    pools = {key: _charged(streams, windows / key[1]) for key, streams in baseline.pools.items()}
    return replace(baseline, heads=_charged(baseline.heads, windows), pools=pools)


def _charged(streams: StreamBaseline, windows: float) -> StreamBaseline:
    more = max(1.0 / np.sqrt(2.0 * windows) - 1.0 / np.sqrt(2.0 * LONG), 0.0)
    larger, smaller = (1.0 + _SCALE_ERRORS * more) ** 2, max(1.0 - _SCALE_ERRORS * more, _LEAST_SCALE) ** 2
    bets = np.array(streams.bets.lambdas)[:, None, None]
    mean = bets**2 * (larger - 1.0) / 2.0 + np.abs(bets) * _MEAN_ERRORS * np.sqrt(2.0) * more
    bets = np.array(evalue.SPREAD.lambdas)[:, None, None]
    variance = np.where(bets > 0, min(larger, _MOST_VARIANCE), smaller)
    spread = 0.5 * (np.log1p(-2.0 * bets) - np.log1p(-2.0 * bets * variance))
    return replace(streams, psi_mean=streams.psi_mean + mean, psi_spread=streams.psi_spread + np.maximum(spread, 0.0))
