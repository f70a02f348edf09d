"""What is left of a value when its slow movement is foreseen: innovations of "AR(1) plus white noise".

A head's window means wander: traffic changes its subjects over hours, and on top lies the noise of sampling few rows.  A
detector that takes such values as independent gives dozens of false alarms for each one promised, and so does one that
subtracts the last value (lag-1 prewhitening), because the sum of a slow signal and white noise is no AR(1) but an ARMA(1,1).
So the slow part is foreseen by the filter that is optimal for it (Kalman, one state a stream), and only what the filter did
not foresee goes on::

    y_t = s_t + e_t    s_t = phi s_{t-1} + h_t    var s = share    var e = (1 - share) g_t    var y = 1

``g_t = 1 - sampled + sampled * typical rows / rows``: of the white part some is sampling, which is less where rows are more.
How much (``sampled``) is fitted where rows vary in the baseline, and is kept as an interval: where they hardly vary it is 0 to
1.  The end is taken that makes the variance larger, and rows beyond those of the baseline count as its most.  For shifts of the
mean that costs speed and no alarm.  Values may then be steadier than assumed; :meth:`SlowNoise.dilution` says where, and by how
much, so that nobody takes that for a change of spread.

A missing value lets the state run on without an update.  An outlier moves the state by at most :data:`CLIP` standard
deviations.

Cost: a dozen array operations a window; the fit about two seconds for a week of windows (once a baseline).
Source: R. E. Kalman 1960; Harvey, "Forecasting, structural time series models and the Kalman filter", 1989, section 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CLIP = 4.0
"""Standard deviations at which an innovation is clipped."""
PHIS = (0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995)
_TINY = 1e-9
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
_ODDS = np.exp2(np.array([-0.8, -0.4, 0.0, 0.4, 0.8, 1.4, 2.0]))
"""Factors of the odds of phi and of share on the finer grid: near 1 a little is a lot."""
_PLAUSIBLE = 2.71
"""What minus twice the log likelihood may be above its least (one degree of freedom, one side, 95 %)."""
_SHARE_ERROR = 0.03
"""Standard error of ``share``, about, with as many values as the fit looks at."""
_SETTLED = 200
"""Windows after which the filter's gain no longer changes."""
_FIT_STREAMS = 8
_FIT_WINDOWS = 1440
_FIT_VALUES = 16 * 1440
"""Streams of a feature that the fit looks at, and windows, the last ones; more while they have fewer values than this.

Parameters are pooled over heads, and so many values tell phi to a hundredth."""
_COARSE_WINDOWS = 720
"""Windows that the coarse grid looks at, the last ones."""
_SAMPLED = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_GUESSES = (1.0, 0.5, 0.0)
"""Shares of sampling with which the coarse grid is tried: one alone would take for slow what does not go with rows."""
_SHARE_ODDS = np.exp2(np.array([-1.5, -0.7, 0.0, 0.7, 1.5]))
_FEWEST = 0.01
"""Quantile of typical rows over rows below which the baseline has not been."""


@dataclass(frozen=True, slots=True)
class SlowNoise:
    """How slow the values of each feature are, and how their noise goes with rows.  F features."""

    phi: NDArray[np.float64]  # [F] correlation of the slow part from one window to the next
    share: NDArray[np.float64]  # [F] of the variance that is slow
    sampled_least: NDArray[np.float64]  # [F] share of the white part that is sampling: at least
    sampled_most: NDArray[np.float64]  # [F] and at most
    fewest: NDArray[np.float64]  # [F] least of typical rows / rows in the baseline

    def dilution(self, ratio: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return g_t for *ratio* [..., F], typical rows over rows, and what the variance may be over what it is at least."""
        fewer = ratio > 1.0
        held = np.maximum(ratio, self.fewest)
        most = 1.0 + np.where(fewer, self.sampled_most, self.sampled_least) * (held - 1.0)
        least = 1.0 + np.where(fewer, self.sampled_least, self.sampled_most) * (ratio - 1.0)
        doubt = (self.share + (1.0 - self.share) * most) / np.maximum(self.share + (1.0 - self.share) * least, _TINY)
        return most, doubt

    def error(self, windows: int) -> NDArray[np.float64]:
        """Return the standard error [F] of the mean of so many windows in a row, in standard deviations of one.

        Windows that follow each other slowly are worth fewer: the slow part counts with its own correlations.
        """
        lags = np.arange(1, max(windows, 1))[:, None]
        slow = 1.0 + 2.0 * ((1.0 - lags / max(windows, 1)) * self.phi**lags).sum(axis=0)
        return np.asarray(np.sqrt((1.0 - self.share + self.share * slow) / max(windows, 1)))

    def margin(self, dilution: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how much, as a share, the variance may be off at *dilution* [..., F] because ``share`` is an estimate."""
        total = self.share + (1.0 - self.share) * dilution
        return np.asarray(_SHARE_ERROR * np.abs(dilution - 1.0) / np.maximum(total, _TINY))

    def held(self, y: NDArray[np.float64], dilution: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return *y* [..., F, K] clipped at as many of its own standard deviations as an innovation is."""
        reach = CLIP * np.sqrt(self.share + (1.0 - self.share) * dilution)[..., None]
        held: NDArray[np.float64] = np.clip(y, -reach, reach)
        return held


class Filter:
    """Foresees the slow part of F x K streams, window by window."""

    def __init__(
        self, phi: NDArray[np.float64], share: NDArray[np.float64], streams: int,
        reach: float | NDArray[np.float64] = CLIP,
    ) -> None:
        """*phi* and *share* are [F]; *streams* is K; innovations are clipped at *reach* standard deviations."""
        self._reach = reach
        self._phi = phi[:, None]
        self._share = share[:, None]
        shape = (len(phi), streams)
        self.state = np.zeros(shape)
        """[F, K]: the slow part foreseen for the next window."""
        self.variance = np.broadcast_to(self._share, shape).copy()
        """[F, K]: how uncertain that is."""

    def step(self, y: NDArray[np.float64], dilution: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the innovations [F, K] of one window in standard deviations, clipped; NaN where *y* is NaN.

        *y* [F, K] has mean 0 and variance 1 on the baseline; *dilution* [F, 1] or [F, K] is g_t of the module's docstring.
        """
        total = self.variance + (1.0 - self._share) * dilution
        with np.errstate(invalid="ignore", divide="ignore"):
            innovation: NDArray[np.float64] = np.clip((y - self.state) / np.sqrt(total), -self._reach, self._reach)
        seen = ~np.isnan(innovation)
        gain = np.where(seen & (total > 0), self.variance / np.where(total > 0, total, 1.0), 0.0)
        self.state = self._phi * (self.state + gain * np.where(seen, np.clip(innovation, -CLIP, CLIP), 0.0) * np.sqrt(total))
        self.variance = self._phi**2 * self.variance * (1.0 - gain) + (1.0 - self._phi**2) * self._share
        return innovation

    def skip(self, windows: int) -> None:
        """Let *windows* windows pass of which nothing is known; the same as so many steps of missing values."""
        faded = self._phi ** (2 * windows)
        self.state = self._phi**windows * self.state
        self.variance = faded * self.variance + (1.0 - faded) * self._share

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that the next window depends on."""
        return {"state": self.state, "variance": self.variance}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on where :meth:`save` was called."""
        self.state, self.variance = saved["state"].astype(np.float64), saved["variance"].astype(np.float64)


def fit(series: NDArray[np.float64], ratio: NDArray[np.float64]) -> SlowNoise:
    """Return the slow noise of *series* [N, F, K], one for each feature.

    The most likely on a grid, then on a finer one; and of those that are about as likely (95 % of a likelihood ratio) the one
    that foresees most, because what is taken for too fast gives false alarms, and what is taken for too slow gives late ones.
    Streams that move together count as so many independent ones as they are.

    The series have mean 0 and variance 1 in a window of typical rows; *ratio* [N, F] is typical rows over rows.  NaN is a
    missing value.
    """
    windows, features, streams = series.shape
    known: NDArray[np.bool_] = np.any(~np.isnan(series), axis=2)
    fewest = np.array([np.quantile(ratio[known[:, f], f], _FEWEST) if known[:, f].any() else 1.0 for f in range(features)])
    looked_at = min(streams, max(_FIT_STREAMS, _FIT_VALUES // windows))
    last = slice(-max(_FIT_WINDOWS, _FIT_VALUES // looked_at), None)
    sample = series[last, :, np.unique(np.linspace(0, streams - 1, looked_at).astype(np.int64))]
    ratio = ratio[last]
    every = np.arange(features)
    grids = (grid.ravel() for grid in np.meshgrid(PHIS, SHARES, indexing="ij"))
    phi, share = (np.tile(np.append(grid, 0.0), (features, 1)) for grid in grids)  # and no slow part at all
    part = slice(-_COARSE_WINDOWS, None)
    guesses = _GUESSES if np.ptp(ratio) > _TINY else _GUESSES[:1]
    misfits = [_misfit(sample[part], ratio[part], phi, share, np.full_like(phi, guess)) for guess in guesses]
    best = np.concatenate(misfits, axis=1).argmin(axis=1) % phi.shape[1]
    phi, share = phi[every, best, None], share[every, best, None]
    independent = _independent(sample, ratio, phi[:, 0], share[:, 0])
    independent /= np.maximum((~np.isnan(sample)).any(axis=0).sum(axis=1), 1)
    sampled, least, most = _sampling(sample, ratio, phi, share, independent)
    odds_of_phi, odds_of_share = (grid.ravel() for grid in np.meshgrid(_ODDS, _ODDS, indexing="ij"))
    phi, share = _shifted(phi, odds_of_phi), _shifted(share, odds_of_share)
    misfit = _misfit(sample, ratio, phi, share, np.broadcast_to(sampled[:, None], phi.shape))
    plausible = (misfit - misfit.min(axis=1, keepdims=True)) * independent[:, None] <= _PLAUSIBLE
    slowest = np.where(plausible, _seen_of_a_shift(phi, share), np.inf).argmin(axis=1)
    return SlowNoise(phi[every, slowest], share[every, slowest], least, most, np.minimum(fewest, 1.0))


def _sampling(
    sample: NDArray[np.float64], ratio: NDArray[np.float64], phi: NDArray[np.float64], share: NDArray[np.float64],
    independent: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of the white part that is most likely sampling, its least and its most, [F] each."""
    features = len(phi)
    if np.ptp(ratio) < _TINY:
        return np.ones(features), np.zeros(features), np.ones(features)
    shape = (features, len(_SAMPLED) * len(_SHARE_ODDS))
    sampled = np.broadcast_to(np.repeat(_SAMPLED, len(_SHARE_ODDS)), shape)
    shares = _shifted(share, np.tile(_SHARE_ODDS, len(_SAMPLED)))
    misfit = _misfit(sample, ratio, np.broadcast_to(phi, shape), shares, sampled)
    profile = misfit.reshape(features, len(_SAMPLED), -1).min(axis=2)
    plausible = (profile - profile.min(axis=1, keepdims=True)) * independent[:, None] <= _PLAUSIBLE
    grid = np.asarray(_SAMPLED)
    least, most = np.where(plausible, grid, np.inf).min(axis=1), np.where(plausible, grid, -np.inf).max(axis=1)
    return grid[profile.argmin(axis=1)], least, most


def _shifted(share: NDArray[np.float64], odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares whose odds are *odds* times those of *share*; 0 stays 0, and 1 counts as 0.98."""
    held = np.minimum(share, 0.98)
    moved: NDArray[np.float64] = odds * held / (1.0 - held + odds * held)
    return moved


def _misfit(
    series: NDArray[np.float64], ratio: NDArray[np.float64], phi: NDArray[np.float64], share: NDArray[np.float64],
    sampled: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return minus twice the log likelihood of candidates [F, G] for each feature's *series* [N, F, K], [F, G]."""
    features, count = phi.shape
    phi, share, sampled = phi[..., None], share[..., None], sampled[..., None]
    white, carried, renewed = 1.0 - share, phi**2, (1.0 - phi**2) * share
    state, variance = np.zeros((features, count, series.shape[2])), share
    misfit = np.zeros((features, count))
    with np.errstate(invalid="ignore"):
        for values, at in zip(series, ratio, strict=True):
            y = values[:, None, :]
            seen = ~np.isnan(y)
            total = variance + white * (1.0 + sampled * (at[:, None, None] - 1.0))
            deviation = np.sqrt(total)
            innovation = (y - state) / deviation
            np.clip(innovation, -CLIP, CLIP, out=innovation)
            gain = variance / total
            if seen.all():
                misfit += (np.log(np.maximum(total, _TINY)) + innovation**2).sum(axis=2)
            else:
                misfit += np.where(seen, np.log(np.maximum(total, _TINY)) + innovation**2, 0.0).sum(axis=2)
                gain, innovation = np.where(seen, gain, 0.0), np.where(seen, innovation, 0.0)
            state = phi * (state + gain * innovation * deviation)
            variance = carried * variance * (1.0 - gain) + renewed
    return misfit


def _independent(
    series: NDArray[np.float64], ratio: NDArray[np.float64], phi: NDArray[np.float64], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how many independent streams the innovations of *series* [N, F, K] amount to, [F]: tr(C)^2 / |C|^2."""
    filters = Filter(phi, share, series.shape[2])
    w = np.nan_to_num(np.stack([filters.step(y, at[:, None]) for y, at in zip(series, ratio, strict=True)]))
    covariance = np.einsum("nfk,nfl->fkl", w, w)
    trace = np.trace(covariance, axis1=1, axis2=2)
    return np.asarray(np.maximum(trace, _TINY) ** 2 / np.maximum((covariance**2).sum(axis=(1, 2)), _TINY**2))


def _seen_of_a_shift(phi: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much of a lasting shift of one standard deviation each innovation shows, in its own, of the same shape."""
    variance = share.copy()
    for _ in range(_SETTLED):
        total = variance + 1.0 - share
        gain = variance / np.maximum(total, _TINY)
        variance = phi**2 * variance * (1.0 - gain) + (1.0 - phi**2) * share
    total = np.maximum(variance + 1.0 - share, _TINY)
    gain = variance / total
    shown: NDArray[np.float64] = (1.0 - phi) / (1.0 - phi + phi * gain) / np.sqrt(total)
    return shown
