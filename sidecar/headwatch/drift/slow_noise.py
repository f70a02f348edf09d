"""What is left of a value when its slow movement is foreseen: innovations of "AR(1) plus white noise".

A head's window means wander: traffic changes its subjects over hours, and on top lies the noise of sampling few rows.  A
detector that takes such values as independent gives dozens of false alarms for each one promised, and so does one that
subtracts the last value (lag-1 prewhitening), because the sum of a slow signal and white noise is no AR(1) but an ARMA(1,1).
So the slow part is foreseen by the filter that is optimal for it (Kalman, one state a stream), and only what the filter did
not foresee goes on::

    y_t = s_t + e_t    s_t = phi s_{t-1} + h_t    var s = share    var e = (1 - share) g_t    var y = 1

``g_t = max(1, typical rows / rows)``: a window of few rows is trusted less.  One with more rows than usual is trusted no more
than usual, since how much of the white part is sampling cannot be told where rows hardly vary.  Both choices make the variance
that is assumed rather too large.  For shifts of the mean that costs speed and no alarm; but where rows multiply, values become
steadier than the baseline, and the detectors of spread page on that.

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
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
_ODDS = np.exp2(np.array([-0.8, -0.4, 0.0, 0.4, 0.8, 1.4, 2.0]))
"""Factors of the odds of phi and of share on the finer grid: near 1 a little is a lot."""
_PLAUSIBLE = 2.71
"""What minus twice the log likelihood may be above its least (one degree of freedom, one side, 95 %)."""
_SETTLED = 200
"""Windows after which the filter's gain no longer changes."""
_FIT_STREAMS = 32
"""Streams of a feature that the fit looks at: parameters are pooled over heads, and a sample tells them well enough."""


@dataclass(frozen=True, slots=True)
class SlowNoise:
    """How slow the values of each feature are.  F features."""

    phi: NDArray[np.float64]  # [F] correlation of the slow part from one window to the next
    share: NDArray[np.float64]  # [F] of the variance that is slow


class Filter:
    """Foresees the slow part of F x K streams, window by window."""

    def __init__(self, noise: SlowNoise, streams: int) -> None:
        self._phi = noise.phi[..., None]
        self._share = noise.share[..., None]
        shape = (*noise.phi.shape, streams)
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
            innovation: NDArray[np.float64] = np.clip((y - self.state) / np.sqrt(total), -CLIP, CLIP)
        seen = ~np.isnan(innovation)
        gain = np.where(seen & (total > 0), self.variance / np.where(total > 0, total, 1.0), 0.0)
        self.state = self._phi * (self.state + gain * np.where(seen, innovation, 0.0) * np.sqrt(total))
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


def fit(series: NDArray[np.float64], dilution: NDArray[np.float64]) -> SlowNoise:
    """Return the slow noise of *series* [N, F, K], one for each feature.

    The most likely on a grid, then on a finer one; and of those that are about as likely (95 % of a likelihood ratio) the one
    that foresees most, because what is taken for too fast gives false alarms, and what is taken for too slow gives late ones.
    Streams that move together count as so many independent ones as they are.

    The series have mean 0 and variance 1; *dilution* is [N, F].  NaN is a missing value.
    """
    features, streams = series.shape[1:]
    chosen = np.unique(np.linspace(0, streams - 1, min(streams, _FIT_STREAMS)).astype(np.int64))
    sample = series[:, :, chosen]
    every = np.arange(features)
    phi, share = (grid.ravel() for grid in np.meshgrid(PHIS, SHARES, indexing="ij"))
    phi, share = np.append(phi, 0.0), np.append(share, 0.0)  # and no slow part at all
    coarse = SlowNoise(np.tile(phi, (features, 1)), np.tile(share, (features, 1)))
    best = _misfit(sample, dilution, coarse).argmin(axis=1)
    found = SlowNoise(coarse.phi[every, best], coarse.share[every, best])
    fine_phi, fine_share = (grid.ravel() for grid in np.meshgrid(_ODDS, _ODDS, indexing="ij"))
    fine = SlowNoise(_shifted(found.phi[:, None], fine_phi), _shifted(found.share[:, None], fine_share))
    misfit = _misfit(sample, dilution, fine)
    independent = _independent(sample, dilution, found) / np.maximum((~np.isnan(sample)).any(axis=0).sum(axis=1), 1)
    plausible = (misfit - misfit.min(axis=1, keepdims=True)) * independent[:, None] <= _PLAUSIBLE
    slowest = np.where(plausible, _seen_of_a_shift(fine), np.inf).argmin(axis=1)
    return SlowNoise(fine.phi[every, slowest], fine.share[every, slowest])


def _shifted(share: NDArray[np.float64], odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares whose odds are *odds* times those of *share*; 0 stays 0, and 1 counts as 0.98."""
    held = np.minimum(share, 0.98)
    moved: NDArray[np.float64] = odds * held / (1.0 - held + odds * held)
    return moved


def _misfit(series: NDArray[np.float64], dilution: NDArray[np.float64], candidates: SlowNoise) -> NDArray[np.float64]:
    """Return minus twice the log likelihood of the *candidates* [F, G] for each feature's *series* [N, F, K], [F, G]."""
    features, count = candidates.phi.shape
    flat = SlowNoise(candidates.phi.ravel(), candidates.share.ravel())
    filters = Filter(flat, series.shape[2])
    misfit = np.zeros(features * count)
    for y, spread in zip(series, dilution, strict=True):
        diluted = np.repeat(spread, count)[:, None]
        total = filters.variance + (1.0 - flat.share[:, None]) * diluted
        innovation = filters.step(np.repeat(y, count, axis=0), diluted)  # [F * G, streams]
        misfit += np.nansum(np.log(np.maximum(total, 1e-9)) + innovation**2, axis=1, where=~np.isnan(innovation))
    return misfit.reshape(features, count)


def _independent(series: NDArray[np.float64], dilution: NDArray[np.float64], noise: SlowNoise) -> NDArray[np.float64]:
    """Return how many independent streams the innovations of *series* [N, F, K] amount to, [F]: tr(C)^2 / |C|^2."""
    filters = Filter(noise, series.shape[2])
    w = np.nan_to_num(np.stack([filters.step(y, spread[:, None]) for y, spread in zip(series, dilution, strict=True)]))
    covariance = np.einsum("nfk,nfl->fkl", w, w)
    trace = np.trace(covariance, axis1=1, axis2=2)
    return np.asarray(np.maximum(trace, 1e-12) ** 2 / np.maximum((covariance**2).sum(axis=(1, 2)), 1e-12))


def _seen_of_a_shift(noise: SlowNoise) -> NDArray[np.float64]:
    """Return how much of a lasting shift of one standard deviation each innovation shows, in its own, of the same shape."""
    variance = noise.share.copy()
    for _ in range(_SETTLED):
        total = variance + 1.0 - noise.share
        gain = variance / np.maximum(total, 1e-12)
        variance = noise.phi**2 * variance * (1.0 - gain) + (1.0 - noise.phi**2) * noise.share
    total = np.maximum(variance + 1.0 - noise.share, 1e-12)
    gain = variance / total
    shown: NDArray[np.float64] = (1.0 - noise.phi) / (1.0 - noise.phi + noise.phi * gain) / np.sqrt(total)
    return shown
