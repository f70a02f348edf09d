"""One stratum: its heads, their pools, and what each family of detectors has against the baseline.

A family is one kind of change on one scale.  Its evidence of a feature is an average of M over streams, with weights that were
fixed beforehand, so each keeps the promise by itself and all together do::

    heads.mean      mean over heads of M of bets on w           few heads that moved
    heads.spread    mean over heads of M of bets on w**2 - 1    few heads that move about more, or less
    level.1         M of all heads' pool / 2 + mean over the    many heads, in one direction
    energy.1, .8    layers of M of the layer's pool / 2         many heads in different directions, and more spread
    lasting.8                                                   small shifts that last, each head in its own direction

The last three rows differ in what is pooled: :mod:`headwatch.drift.pool`.

Cost: the update of all families is the figure ``window_ms_5120`` of docs/method.md (5,120 heads x 6 features: some ten
milliseconds of a core); some 160 bytes of state a head and feature.  Learning a day of as many takes minutes, feature by
feature, so that memory stays below a gigabyte.
Source: J. Shin, A. Ramdas, A. Rinaldo, "E-detectors", arXiv 2203.03532 (averages of e-detectors are e-detectors).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift import cycle, evalue, pool
from headwatch.drift.saved import below, prefixed
from headwatch.drift.stream import StreamBaseline, StreamMonitor, joined, learn

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

_VALUES_AT_ONCE = 8_000_000
"""Values that are learned from at a time, feature by feature: a day of 5,120 heads has 44 million."""
_POOL_BLOCKS = 20
"""Blocks that the baseline of a pool needs."""
_FLOOR = 1e-4
"""Smallest standard deviation of a window's mean that is believed of a head: its features lie in [0, 1], are kept with 16 bits,
and one that is constant in the baseline (no sink in a window layer, a maximum of 1) must not page on dust."""
_POOL_REACH = 8.0
"""Standard deviations at which a pool's innovations are clipped: what single heads may add is clipped already."""
_BETS: Mapping[pool.Kind, evalue.Bets] = {"level": evalue.MEAN, "energy": evalue.ENERGY, "lasting": evalue.LASTING}


@dataclass(frozen=True, slots=True)
class StratumBaseline:
    """What was learned of one stratum."""

    features: tuple[str, ...]
    layer: NDArray[np.int64]  # [K] layer of each head, 0 ... L-1
    window_seconds: float
    periods: tuple[float, ...]  # seconds, of the cycles that are known
    heads: StreamBaseline
    pools: dict[tuple[pool.Kind, int], StreamBaseline]  # by kind and scale

    @property
    def families(self) -> tuple[str, ...]:
        """Return the names of the families that this baseline is long enough for."""
        return ("heads.mean", "heads.spread", *(f"{kind}.{scale}" for kind, scale in self.pools))


def learn_stratum(
    features: tuple[str, ...], layer: NDArray[np.int64], numbers: NDArray[np.int64], window_seconds: float,
    values: NDArray[np.floating], rows: NDArray[np.float64], covariates: NDArray[np.float64] | None = None,
) -> StratumBaseline:
    """Return the baseline of a stratum from its windows.

    *numbers* [N] are the numbers of the windows (start over length), ascending, with gaps where windows are missing; *values*
    [N, F, K] the means of a window, NaN where undefined; *rows* [N, F] how many rows they are means of; *covariates* [N, C]
    what else is known of those rows (mean length of their contexts, …).
    """
    numbers, values, rows, covariates = _dense(numbers, values, rows, covariates)
    times = numbers.astype(np.float64) * window_seconds
    periods = cycle.known_periods(float(times[-1] - times[0]))
    causes = _causes(times, periods, covariates)
    at_once = max(1, _VALUES_AT_ONCE // (len(values) * len(layer)))
    parts = [
        _learn_features(layer, int(numbers[0]), np.asarray(values[:, part], np.float64), rows[:, part], causes)
        for part in (slice(first, first + at_once) for first in range(0, len(features), at_once))
    ]
    pools = {key: joined([part[key] for _, part in parts]) for key in parts[0][1]}
    return StratumBaseline(features, layer, window_seconds, periods, joined([heads for heads, _ in parts]), pools)


def _learn_features(
    layer: NDArray[np.int64], first: int, values: NDArray[np.float64], rows: NDArray[np.float64], causes: NDArray[np.float64]
) -> tuple[StreamBaseline, dict[tuple[pool.Kind, int], StreamBaseline]]:
    """Return the baseline of the heads and of their pools, for some of the features, from windows numbered *first* on."""
    heads, levels, w = learn(values, rows, causes, floor=np.full((values.shape[1], 1), _FLOOR))
    pools: dict[tuple[pool.Kind, int], StreamBaseline] = {}
    uneven = np.zeros(0)
    windows = np.maximum(np.median(heads.windows, axis=1), 1.0)[:, None]  # a feature may be seen less than its fellows
    for scale, kinds in pool.SCALES.items():
        if (first % scale + len(levels)) // scale < _POOL_BLOCKS:
            continue
        blocks = pool.blocks(scale, layer, first, levels, w, rows)
        for kind in kinds:
            series, pooled_rows = blocks.of(kind)
            if kind == "energy" and scale == 1:
                uneven = pool.unevenness(series)
            pools[kind, scale], _, _ = learn(
                series, pooled_rows, np.zeros((len(series), 0)),  # heads come without their causes
                _BETS[kind],
                None if kind == "level" else pool.bias(kind, scale, windows, uneven),
                reach=_POOL_REACH, parameters=1 + causes.shape[1],
            )
    return heads, pools


class StratumMonitor:
    """The evidence against the baseline of one stratum."""

    def __init__(self, baseline: StratumBaseline) -> None:
        self.baseline = baseline
        self.number = -1
        """The last window that was taken."""
        self.heads = StreamMonitor(baseline.heads, spread=True)
        scales = sorted({scale for _, scale in baseline.pools})
        self.collectors = {scale: pool.Pool(scale, baseline.layer, len(baseline.features)) for scale in scales}
        self.pools = {key: StreamMonitor(known, spread=False) for key, known in baseline.pools.items()}

    def step(
        self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64],
        covariates: NDArray[np.float64] | None = None,
    ) -> None:
        """Take the *values* [F, K] of window *number*, means of *rows* [F] rows, and its *covariates* [C]; NaN is undefined.

        Numbers ascend; those that are left out are missing windows.
        """
        if 0 <= self.number < number - 1:
            self.heads.filter.skip(number - 1 - self.number)
        self.number = number
        seconds = np.array([number * self.baseline.window_seconds])
        causes = _causes(seconds, self.baseline.periods, None if covariates is None else covariates[None])[0]
        seen = self.heads.step(values, rows, causes)
        for scale, collector in self.collectors.items():
            for block in collector.step(number, seen, rows):
                for kind in pool.SCALES[scale]:
                    # of what a variance is off, its cube root shows a third
                    doubts = (block.doubt, block.margin / 3.0) if kind == "energy" else (None, None)
                    self.pools[kind, scale].step(*block.of(kind), np.zeros(0), scale, *doubts)

    def evidence(self) -> dict[str, NDArray[np.float64]]:
        """Return for each family the evidence of each feature, [F], averaged over streams with fixed weights."""
        assert self.heads.spread is not None  # made with it
        found = {
            "heads.mean": self.heads.mean.mixture().mean(axis=1),
            "heads.spread": self.heads.spread.mixture().mean(axis=1),
        }
        for (kind, scale), monitor in self.pools.items():
            streams = monitor.mean.mixture()  # [F, all heads and each layer]
            found[f"{kind}.{scale}"] = 0.5 * streams[:, 0] + 0.5 * streams[:, 1:].mean(axis=1)
        return found

    def reset(self, features: NDArray[np.bool_] | None = None, families: Collection[str] | None = None) -> None:
        """Forget the evidence, of all features or of those marked [F], of all families or of those named.

        What is foreseen of the slow parts stays.
        """
        marked = np.ones(len(self.baseline.features), bool) if features is None else features
        assert self.heads.spread is not None  # made with it
        own = {"heads.mean": self.heads.mean, "heads.spread": self.heads.spread}
        own |= {f"{kind}.{scale}": monitor.mean for (kind, scale), monitor in self.pools.items()}
        for name, detector in own.items():
            if families is None or name in families:
                detector.reset(marked)

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that the next window depends on, by name."""
        kept = {"number": np.array(self.number), **prefixed("heads", self.heads.save())}
        for scale, collector in self.collectors.items():
            kept |= prefixed(f"block{scale}", collector.save())
        for (kind, scale), monitor in self.pools.items():
            kept |= prefixed(f"{kind}{scale}", monitor.save())
        return kept

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on where :meth:`save` was called, with the same baseline."""
        self.number = int(saved["number"])
        self.heads.restore(below("heads", saved))
        for scale, collector in self.collectors.items():
            collector.restore(below(f"block{scale}", saved))
        for (kind, scale), monitor in self.pools.items():
            monitor.restore(below(f"{kind}{scale}", saved))


def _causes(
    times_seconds: NDArray[np.float64], periods: tuple[float, ...], covariates: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return what is known to move the values of each window, [N, C]."""
    cycles = cycle.design(times_seconds, periods)
    return cycles if covariates is None else np.concatenate([cycles, covariates], axis=1)


def _dense(
    numbers: NDArray[np.int64], values: NDArray[np.floating], rows: NDArray[np.float64], covariates: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.floating], NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the same windows with those that are missing put in as NaN, so that time passes in the fit as it does later."""
    first, count = int(numbers[0]), int(numbers[-1] - numbers[0]) + 1
    if count == len(numbers):
        return numbers, values, rows, covariates
    place = numbers - first
    dense = np.full((count, *values.shape[1:]), np.nan)
    dense[place] = values
    dense_rows = np.zeros((count, rows.shape[1]))
    dense_rows[place] = rows
    if covariates is None:
        return first + np.arange(count), dense, dense_rows, None
    dense_covariates = np.full((count, covariates.shape[1]), np.nan)
    dense_covariates[place] = covariates
    return first + np.arange(count), dense, dense_rows, dense_covariates
