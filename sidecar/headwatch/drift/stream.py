"""Streams of one stratum: what their baseline knows, and the evidence against it.

A stream is one number a window: a feature of one head, or of many heads pooled.  ``x`` becomes an innovation w in three
steps, each learned from the baseline: standardise (mean, known causes, scale), foresee the slow part
(:mod:`headwatch.drift.slow_noise`), recentre and rescale what is left.  The scale counts what correlation is left after
whitening (long-run variance of each stream, drawn towards that of all), so that a head which is slower than its fellows
does not shout::

    y = (x - mean - causes) / scale      w = ((y - foreseen) / its deviation - centre) / spread, clipped

The long-run variance is that of sums over blocks, over what independent values would give.  From w come e-values
(:mod:`headwatch.drift.evalue`) and from these the evidence (:mod:`headwatch.drift.shiryaev_roberts`).

Cost: some thirty array operations a window; of state 8 bytes a bet and 16 for the filter, so 96 bytes a stream with six bets on
the mean and four on the spread.  Learning makes some dozen passes over N x F x K values.
Source: R. E. Kalman 1960 and A. C. Harvey 1989 for what is foreseen; E. Carlstein, "The use of subseries values for estimating
the variance of a general statistic from a stationary sequence", Annals of Statistics 1986, for the variance of blocks.

Shapes: N windows, F features, K streams of each.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift import evalue, regression, slow_noise
from headwatch.drift.saved import below, prefixed
from headwatch.drift.shiryaev_roberts import ShiryaevRoberts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headwatch.drift.regression import Regression

_TINY = 1e-12
_NORMAL_MAD = 1.4826
_ORDINARY = 1.5
"""Times as many rows as typical, or as few, that tell the scale of a window of typical rows."""
_DOUBT = 1.02
"""What the variance may be over what it is at least, beyond which nothing is bet on values that are steadier."""
_BLOCKS = (16, 192)
"""Windows over which the correlation that is left is measured: a quarter of an hour, and what is left of a cycle of the day."""
_FEWEST_BLOCKS = 5
_DRAWN = 16
"""Blocks that a single stream needs to count as much as all streams together."""


@dataclass(frozen=True, slots=True)
class StreamBaseline:
    """What was learned of F x K streams."""

    mean: NDArray[np.float64]  # [F, K]
    scale: NDArray[np.float64]  # [F, K] standard deviation of a window with typical rows
    rows: NDArray[np.float64]  # [F] typical rows of a window
    regression: Regression
    noise: slow_noise.SlowNoise
    centre: NDArray[np.float64]  # [F, K] mean of the innovations
    spread: NDArray[np.float64]  # [F, K] their long-run standard deviation
    bets: evalue.Bets
    psi_mean: NDArray[np.float64]  # [bets, F, K]
    psi_spread: NDArray[np.float64]  # [bets, F, K]
    windows: NDArray[np.float64]  # [F, K] windows that were seen, for each parameter of the mean
    reach: NDArray[np.float64]  # [F, 1] standard deviations at which innovations are clipped
    allowance: NDArray[np.float64]  # [F, K] by how much later innovations may be off besides, though nothing changed


def learn(
    series: NDArray[np.float64], rows: NDArray[np.float64], causes: NDArray[np.float64],
    bets: evalue.Bets = evalue.MEAN, bias: NDArray[np.float64] | None = None, floor: NDArray[np.float64] | None = None,
    reach: float | NDArray[np.float64] = slow_noise.CLIP, parameters: int | None = None,
) -> tuple[StreamBaseline, NDArray[np.float64], NDArray[np.float64]]:
    """Return the baseline of *series* [N, F, K], its standardised levels and its innovations, [N, F, K] each.

    *rows* is [N, F]; *causes* [N, C] are what is known to move the values; *bets* are made on the mean; *bias* [F, K], in units
    of x, is by how much the mean of later values may lie off that of the baseline although nothing changed; *floor* [F, 1] or
    [F, K], in units of x, is the smallest standard deviation that is believed (a signal that was zero all day may be 0.01
    tomorrow).  NaN is a missing value.
    """
    typical = np.maximum(np.nanmedian(np.where(rows > 0, rows, np.nan), axis=0), 1.0)
    ratio = typical / np.maximum(rows, 1.0)  # [N, F]
    ordinary = (ratio >= 1.0 / _ORDINARY) & (ratio <= _ORDINARY)
    mean, scale = _robust(series, ordinary)
    known = regression.fit(np.clip(series - mean, -slow_noise.CLIP * scale, slow_noise.CLIP * scale), causes)
    rest = series - mean - known.expected(causes)
    _, scale = _robust(rest, ordinary)
    raised = np.zeros(scale.shape, bool) if floor is None else floor > scale
    scale = scale if floor is None else np.maximum(scale, floor)
    standard = rest / scale
    noise = slow_noise.fit(np.where(raised, np.nan, standard), ratio)
    constant = raised.all(axis=1)  # nothing was seen that could be foreseen
    noise = replace(noise, phi=np.where(constant, 0.0, noise.phi), share=np.where(constant, 0.0, noise.share))
    foreseen = slow_noise.Filter(noise.phi, noise.share, series.shape[2], reach)
    dilution, _ = noise.dilution(ratio)
    innovations = np.stack([foreseen.step(y, at[:, None]) for y, at in zip(standard, dilution, strict=True)])
    with np.errstate(invalid="ignore"):
        centre = np.nan_to_num(np.nanmean(innovations, axis=0))
    spread = _long_run_deviation(innovations - centre)
    spread = np.where(raised, np.maximum(spread, 1.0), spread)  # or the floor would be taken back here
    w = np.clip((innovations - centre) / spread, -reach, reach)
    windows = (~np.isnan(w)).sum(axis=0) / (1 + causes.shape[1] if parameters is None else parameters)
    return (
        StreamBaseline(
            mean=mean, scale=scale, rows=typical, regression=known, noise=noise, centre=centre,
            spread=spread, bets=bets, psi_mean=evalue.costs(bets, w), psi_spread=evalue.costs(evalue.SPREAD, _excess(w)),
            windows=windows, allowance=np.zeros_like(mean) if bias is None else bias / scale,
            reach=np.broadcast_to(np.asarray(reach, np.float64), (series.shape[1], 1)).copy(),
        ),
        noise.held(standard, dilution),
        w,
    )


def joined(parts: Sequence[StreamBaseline]) -> StreamBaseline:
    """Return the baseline of the features of all *parts*, which have the same streams, causes and bets."""
    known = [part.regression for part in parts]

    def features(name: str, axis: int = 0) -> NDArray[np.float64]:
        return np.concatenate([getattr(part, name) for part in parts], axis=axis)

    return StreamBaseline(
        mean=features("mean"), scale=features("scale"), rows=features("rows"),
        regression=replace(known[0], slopes=np.concatenate([part.slopes for part in known], axis=1)),
        noise=slow_noise.SlowNoise(**{
            field.name: np.concatenate([getattr(part.noise, field.name) for part in parts])
            for field in fields(slow_noise.SlowNoise)
        }),
        centre=features("centre"), spread=features("spread"), bets=parts[0].bets, psi_mean=features("psi_mean", 1),
        psi_spread=features("psi_spread", 1), windows=features("windows"), reach=features("reach"),
        allowance=features("allowance"),
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """What one window came to."""

    level: NDArray[np.float64]  # [F, K] in standard deviations, clipped
    w: NDArray[np.float64]  # [F, K] innovations, clipped
    doubt: NDArray[np.float64]  # [F] what their variance was taken for over what it may be at least
    margin: NDArray[np.float64]  # [F] by how much, as a share, it may be larger all the same


class StreamMonitor:
    """Evidence against the baseline of F x K streams."""

    def __init__(self, baseline: StreamBaseline, *, spread: bool) -> None:
        """Begin with no evidence; *spread*: whether changes of spread are looked for as well."""
        self.baseline = baseline
        self.filter = slow_noise.Filter(
            baseline.noise.phi, baseline.noise.share, baseline.mean.shape[1], baseline.reach
        )
        self.mean = ShiryaevRoberts((len(baseline.bets.lambdas), *baseline.mean.shape))
        self.spread = ShiryaevRoberts((len(evalue.SPREAD.lambdas), *baseline.mean.shape)) if spread else None
        self._allowed_mean = evalue.allowance(baseline.bets, baseline.windows, baseline.allowance)
        self._sizes = np.abs(np.array(baseline.bets.lambdas))[:, None, None]
        self._allowed_spread = evalue.allowance(evalue.SPREAD, baseline.windows)

    def step(
        self, x: NDArray[np.float64], rows: NDArray[np.float64], causes: NDArray[np.float64], elapsed: float = 1.0,
        doubt: NDArray[np.float64] | None = None, off: NDArray[np.float64] | None = None,
    ) -> Seen:
        """Take the values *x* [F, K] of one window with *rows* [F] and *causes* [C].

        Where *x* is itself a spread: *doubt* [F] is how much smaller the spread that it speaks of may be for want of rows, and
        *off* [F], in units of x, by how much it may be off because the share of sampling is an estimate.
        """
        base = self.baseline
        expected = base.mean + base.regression.expected(causes)
        dilution, own_doubt = base.noise.dilution(base.rows / np.maximum(rows, 1.0))
        level = (x - expected) / base.scale
        innovation = self.filter.step(level, dilution[:, None])
        w = np.clip((innovation - base.centre) / base.spread, -base.reach, base.reach)
        seen = ~np.isnan(w)
        found = evalue.log_e(base.bets, w, base.psi_mean, self._allowed_mean)
        if off is not None:
            found -= self._sizes * (off[:, None] / (base.scale * base.spread))
        self.mean.step(found if doubt is None else _no_steadier(base.bets, found, doubt), seen, elapsed)
        if self.spread is not None:
            found = evalue.log_e(evalue.SPREAD, _excess(w), base.psi_spread, self._allowed_spread)
            self.spread.step(_no_steadier(evalue.SPREAD, found, own_doubt), seen, elapsed)
        return Seen(base.noise.held(level, dilution), w, own_doubt, base.noise.margin(dilution))

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that the next window depends on."""
        kept = {"mean": self.mean.evidence, **prefixed("filter", self.filter.save())}
        return kept if self.spread is None else {**kept, "spread": self.spread.evidence}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on where :meth:`save` was called."""
        self.mean.evidence = saved["mean"].astype(np.float64)
        if self.spread is not None:
            self.spread.evidence = saved["spread"].astype(np.float64)
        self.filter.restore(below("filter", saved))


def _no_steadier(bets: evalue.Bets, log_e: NDArray[np.float64], doubt: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return *log_e* [B, F, K] with no evidence for less spread where *doubt* [F] could explain it."""
    downwards = np.array(bets.lambdas) < 0
    return np.where(downwards[:, None, None] & (doubt > _DOUBT)[:, None], 0.0, log_e)


def _excess(w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return w**2 - 1, of w no further than for heads: a square of what is clipped later would page by itself."""
    excess: NDArray[np.float64] = np.clip(w, -slow_noise.CLIP, slow_noise.CLIP) ** 2 - 1.0
    return excess


def _robust(
    series: NDArray[np.float64], ordinary: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation [F, K] of *series* [N, F, K], each value clipped at four deviations.

    The deviation is that of the windows marked *ordinary* [N, F], whose rows are about typical.
    """
    with np.errstate(invalid="ignore"):
        middle = np.nan_to_num(np.nanmedian(series, axis=0))
        reach = slow_noise.CLIP * _NORMAL_MAD * np.nan_to_num(np.nanmedian(np.abs(series - middle), axis=0))
        clipped = np.clip(series, middle - np.maximum(reach, _TINY), middle + np.maximum(reach, _TINY))
        mean = np.nan_to_num(np.nanmean(clipped, axis=0))
    told = ordinary[:, :, None] & ~np.isnan(series)
    squares = np.where(told, (clipped - mean) ** 2, 0.0).sum(axis=0)
    return mean, np.maximum(np.sqrt(squares / np.maximum(told.sum(axis=0), 1)), _TINY)


def _long_run_deviation(innovations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation [F, K] of innovations [N, F, K] with mean 0, raised where they are still correlated."""
    with np.errstate(invalid="ignore"):
        variance = np.nan_to_num(np.nanmean(innovations**2, axis=0), nan=1.0)
    raised = np.ones_like(variance)
    for length in _BLOCKS:
        blocks = len(innovations) // length
        if blocks < _FEWEST_BLOCKS:
            break
        parts = np.nan_to_num(innovations[: blocks * length]).reshape(blocks, length, *innovations.shape[1:])
        seen = np.maximum((parts != 0).sum(axis=(0, 1)), 1)
        ratio = (parts.sum(axis=1) ** 2).sum(axis=0) / seen / np.maximum(variance, _TINY)  # [F, K]
        together = ratio.mean(axis=1, keepdims=True)
        raised = np.maximum(raised, (blocks * ratio + _DRAWN * together) / (blocks + _DRAWN))
    deviation: NDArray[np.float64] = np.sqrt(np.maximum(variance * raised, _TINY))
    return deviation
