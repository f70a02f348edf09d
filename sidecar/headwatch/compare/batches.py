"""How long a unit must be: windows that say much of the next one are taken together until they say little.

Exchanging units between the sides is right where units do not depend on each other.  Where they do, neighbours are joined in
pairs, again and again ("batch means", Fishman 1978), while the lag-1 correlation of the units exceeds what independent ones
show by chance and enough units are left.  What correlation remains is counted in: the variance of a mean grows by
(1 + r)/(1 - r) for an AR(1) series, and so observed statistics are divided by its root (:class:`Dependence`).

Correlation is measured on all heads of a feature, all signals or all shares together: of one series of thirty units it cannot
be told from chance.  A single slow series among many is therefore judged too mildly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from headwatch.compare.side import Heads, Series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from headwatch.compare.side import Side

LABELLINGS_PER_ALPHA = 20
"""There must be so many ways to label the units, times 1/alpha, before they are compared at all."""
_TOLERATED = 0.1
_BY_CHANCE = 1.5
"""Standard errors (1/root of the pairs) up to which a correlation is taken as chance."""
_MOST = 0.9
_SHARES = ("route:", "language:", "band:")
LENGTHS = {"length": "prompt_log2", "asked_length": "asked_log2"}
_LEAST_GIVEN_BACK = 0.4


@dataclass(frozen=True, slots=True)
class Dependence:
    """Lag-1 correlation of units, by what it was measured on."""

    features: tuple[float, ...]
    signals: float
    traffic: float
    pairs: int

    @property
    def largest(self) -> float:
        """Return the largest."""
        return max(*self.features, self.signals, self.traffic)


def inflation(correlation: float) -> float:
    """Return by what factor *correlation* of neighbours raises the variance of a mean."""
    held = min(max(correlation, 0.0), _MOST)
    return (1.0 + held) / (1.0 - held)


def fewest_labellings(alpha: float) -> float:
    """Return how many ways to label units there must be at level *alpha*."""
    return LABELLINGS_PER_ALPHA / alpha


def enough(first: int, second: int, alpha: float) -> bool:
    """Return whether so many units of each side can be compared at level *alpha*."""
    return min(first, second) > 1 and math.comb(first + second, first) >= fewest_labellings(alpha)


def joined_until_independent(first: Side, second: Side, alpha: float) -> tuple[Side, Side, Dependence]:
    """Return both sides with units so long that they depend on each other little, and how much they still do."""
    while True:
        dependence = dependence_of(first, second)
        limit = max(_TOLERATED, _BY_CHANCE / math.sqrt(max(dependence.pairs, 1)))
        if dependence.largest <= limit:
            return first, second, dependence
        longer = joined(first), joined(second)
        if not enough(longer[0].units, longer[1].units, alpha):
            return first, second, dependence
        first, second = longer


def dependence_of(first: Side, second: Side) -> Dependence:
    """Return how much units of both sides say of the next ones."""
    sides = (first, second)
    features = tuple(
        _correlation((side.runs, heads.values[:, index]) for side in sides for heads in side.cells.values())
        for index in range(min(len(side.features) for side in sides))
    )
    signals = _correlation((side.runs, series.values[:, None]) for side in sides for series in side.signals.values())
    traffic = _correlation((side.runs, share[:, None]) for side in sides for share in shares(side).values())
    pairs = sum(int((np.diff(side.runs) == 0).sum()) for side in sides)
    return Dependence(features, signals, traffic, pairs)


def shares(side: Side) -> dict[str, NDArray[np.float64]]:
    """Return the counts of traffic for each request, by name; ``length`` is the mean log2 of the prompt's tokens.

    NaN in a unit without requests.

    Templates are left out: a rule of their own holds their digests against each other (:mod:`headwatch.compare.certain`).
    """
    requests = side.traffic.get("requests")
    if requests is None:
        return {}
    asked = np.where(requests > 0, requests, np.nan)
    found = {name: counts / asked for name, counts in side.traffic.items() if name.startswith(_SHARES)}
    for name, total in LENGTHS.items():  # windows of earlier versions do not tell what was asked from the rest
        if LENGTHS["length"] in side.traffic:
            found[name] = side.traffic.get(total, side.traffic[LENGTHS["length"]]) / asked
    return found


def joined(side: Side) -> Side:
    """Return *side* with neighbours of a run joined in pairs; one that is left over stays alone."""
    groups: list[int] = []
    for run in np.unique(side.runs):
        size = int((side.runs == run).sum())
        start = groups[-1] + 1 if groups else 0
        groups += [start + place // 2 for place in range(size)]
    group = np.array(groups)
    return replace(
        side,
        length=side.length * 2,
        runs=side.runs[np.unique(group, return_index=True)[1]],
        cells={cell: _joined_heads(heads, group) for cell, heads in side.cells.items()},
        signals={name: _joined_series(series, group) for name, series in side.signals.items()},
        traffic={name: _sums(counts, group) for name, counts in side.traffic.items()},
    )


def _correlation(series: Iterable[tuple[NDArray[np.int64], NDArray[np.floating]]]) -> float:
    """Return the lag-1 correlation of all columns [U, K] together, each centred and scaled by itself.

    That of n values with an estimated mean is (1 + 3r)/n too small (Kendall 1954), which is given back.
    """
    products = squares = pairs = values = columns = 0.0
    for runs, found in series:
        defined = ~np.isnan(found)
        count = defined.sum(axis=0)
        used = count > 3  # noqa: PLR2004 - two degrees of freedom for a mean and a product
        if not used.any():
            continue
        kept = np.where(defined, found, 0.0)[:, used].astype(np.float64)
        known = defined[:, used]
        centred = np.where(known, kept - kept.sum(axis=0) / count[used], 0.0)
        deviation = np.sqrt((centred**2).sum(axis=0) / count[used])
        moving = deviation > 0
        scaled = centred[:, moving] / deviation[moving]
        follows = (np.diff(runs) == 0)[:, None] & known[1:, moving] & known[:-1, moving]
        products += float((scaled[1:] * scaled[:-1] * follows).sum())
        pairs += float(follows.sum())
        squares += float((scaled**2).sum())
        values += float(known[:, moving].sum())
        columns += float(moving.sum())
    if not pairs:
        return 0.0
    shorter = columns / values  # 1/n
    return (products / pairs * values / squares + shorter) / max(1.0 - 3.0 * shorter, _LEAST_GIVEN_BACK)


def _joined_heads(heads: Heads, group: NDArray[np.int64]) -> Heads:
    units = int(group[-1]) + 1
    rows = _sums(heads.rows, group)
    values = np.full((units, *heads.values.shape[1:]), np.nan, np.float32)
    covariates = np.full((units, heads.covariates.shape[1]), np.nan)
    for unit in range(units):
        members = group == unit
        values[unit] = _mean(heads.values[members], heads.rows[members][:, :, None])
        covariates[unit] = _mean(heads.covariates[members], heads.rows[members].max(axis=1, keepdims=True))
    return Heads(values, rows, covariates)


def _joined_series(series: Series, group: NDArray[np.int64]) -> Series:
    units = range(int(group[-1]) + 1)
    means = [_mean(series.values[group == unit], series.requests[group == unit]) for unit in units]
    return Series(np.array(means, np.float64), _sums(series.requests, group))


def _mean(values: NDArray[np.floating], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    weight = np.where(np.isnan(values), 0.0, weights)
    total = weight.sum(axis=0)
    mean = np.divide((np.nan_to_num(values) * weight).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    return np.where(total > 0, mean, np.nan)


def _sums(counts: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    out = np.zeros((int(group[-1]) + 1, *counts.shape[1:]))
    np.add.at(out, group, counts)
    return out
