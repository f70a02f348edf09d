"""How far the same model strays from its own fingerprint, learned from the pinned runs, and what of a run is more than that.

Two cases.  Where all pinned runs agree, any difference above :data:`ROUNDING` is a change: rounding alone (another batch,
another number of threads, another CPU) moves a feature of a float32 engine by some 1e-6, the smallest change worth a name by
1e-4.

Otherwise noise is measured.  Each element's spread is pooled over runs, prompts and rows, which leaves a scale for every layer,
head and feature; the statistic of a layer is the root mean square of the scaled deviations of all prompts, each clipped at
:data:`CLIP` so that one wild element cannot speak for a layer.  For n pinned runs the logarithm of the statistic of each
(against the mean of the others) gives a mean and a spread for every layer, and a new run's

    t_l = (log S_l - mean_l) / (sd_l sqrt(1 + 1/n))

is Student's t with n - 1 degrees of freedom where the logarithms are normal.  A run departs in layer l where t_l exceeds the
quantile of :data:`FALSE_ALARM` / layers: so one run in 10,000 of an unchanged model departs somewhere (at one run in five
minutes: one a month), if pinned runs and later ones are alike.  That assumption is why runs must be pinned under the load that
the server will have.  Too few runs make the quantile large, not the false alarms many.

References: prediction intervals, Hahn and Meeker, Statistical Intervals, 2nd edition, 4.7; Bonferroni over layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.canary.student import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROUNDING = 2e-5
"""Largest deviation that rounding explains on a float32 engine, in units of the features (shares between 0 and 1)."""
FALSE_ALARM = 1e-4
"""Probability that a run of an unchanged model departs, where noise is measured."""
MIN_RUNS = 8
"""Fewer pinned runs say too little of noise."""
CLIP = 8.0
SCALE_FLOOR = 1e-6
"""Features come as float32: a spread below this is none."""


def pooled_scale(readings: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the spread [L, H, F] of elements between runs; *readings* are [N, R, L, H, F], one for each prompt."""
    squares = [item.astype(np.float64).var(axis=0, ddof=1) for item in readings]  # each [R, L, H, F]; NaN if ever undefined
    variance = pooled_mean(squares, 0)
    scale: NDArray[np.float32] = np.sqrt(np.maximum(np.nan_to_num(variance), SCALE_FLOOR**2)).astype(np.float32)
    return scale


def layer_statistic(deviations: Sequence[NDArray[np.float32]], scale: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the root mean square [L] of the scaled *deviations*, [R, L, H, F] of each prompt; NaN for layers not captured."""
    scaled = [np.minimum(np.square(item.astype(np.float64) / scale), CLIP**2) for item in deviations]
    return np.sqrt(pooled_mean(scaled, (0, 2, 3)))


def log_statistics(readings: Sequence[NDArray[np.float32]], scale: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return log S_l of each pinned run against the mean of the others, [N, L]."""
    runs = len(readings[0])
    found = []
    for left_out in range(runs):
        deviations = [(item[left_out] - item.mean(axis=0)) * (runs / (runs - 1)) for item in readings]
        found.append(layer_statistic(deviations, scale))
    return _log(np.array(found))


def scores(
    statistic: NDArray[np.float64], mean: NDArray[np.float64], spread: NDArray[np.float64], runs: int
) -> NDArray[np.float64]:
    """Return t_l [L] of a run's *statistic*; NaN where a layer is not captured."""
    found: NDArray[np.float64] = (_log(statistic) - mean) / (np.maximum(spread, _MIN_SPREAD) * np.sqrt(1.0 + 1.0 / runs))
    return found


def score_limit(runs: int, layers: int) -> float:
    """Return what t_l of an unchanged model exceeds in some layer once in 1 / FALSE_ALARM runs."""
    return quantile(1.0 - FALSE_ALARM / max(layers, 1), runs - 1)


_LOG_FLOOR = 1e-3
_MIN_SPREAD = 0.02
"""Of a logarithm: a statistic that varied by less than 2 % varied less than it will."""


def _log(statistic: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(statistic + _LOG_FLOOR)


def pooled_mean(parts: Sequence[NDArray[np.floating]], axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    """Return the mean over *axis* of all *parts* joined along their first; NaN, without a warning, where nothing is defined."""
    values = np.concatenate(parts).astype(np.float64)
    defined = ~np.isnan(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
