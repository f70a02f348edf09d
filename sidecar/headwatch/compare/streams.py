"""What is tested: streams of both sides one after the other, with the length of contexts taken out.

Within a stratum contexts still differ by a factor of two, and two sides may lie in it differently.  So each stream is
regressed on the mean log-length of its rows (pooled over both sides), and in every statistic the label of the side is
residualised on it as well: a partial regression coefficient, the analysis of covariance.  Where the lengths of the two sides
hardly overlap, its standard error grows, and nothing is found that length could explain.

Units with few rows count less: weight rows/(rows + median rows), which gives half of the variance of a usual unit to sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEWEST_UNITS = 3
"""A stratum or signal with fewer units on one side is listed, not compared."""
_UNITS_PER_CAUSE = 6
_KNOWN = 0.8
"""Where the causes are known in so many units, the others are left out; else the causes are."""
_SMALLEST_SCALE = 1e-6
"""Of a figure that is a share: what float32 leaves of it."""


@dataclass(frozen=True, slots=True)
class Streams:
    """K streams over the U units of both sides, ready for statistics.  C causes are taken out."""

    weights: NDArray[np.float64]  # [U]; 0 where the unit has nothing
    basis: NDArray[np.float64]  # [U, 1 + C] orthonormal under the weights
    residuals: NDArray[np.float32]  # [U, K] over scale; 0 where undefined
    scale: NDArray[np.float64]  # [K] standard deviation of a unit, sides not told apart
    means: NDArray[np.float64]  # [2, K] of each side
    varying: NDArray[np.bool_]  # [K] whether there is anything to compare

    @property
    def present(self) -> NDArray[np.bool_]:
        """Return which units have something."""
        return self.weights > 0

    @property
    def freedom(self) -> int:
        """Return the degrees of freedom that are left for the variance within sides."""
        return int(self.present.sum()) - int(self.basis.shape[1]) - 1


def prepared(
    values: NDArray[np.floating], rows: NDArray[np.float64], causes: NDArray[np.float64], labels: NDArray[np.float64]
) -> Streams | None:
    """Return *values* [U, K] with *rows* [U] and *causes* [U, C] ready to be tested; None where a side has too few units.

    *labels* [U] are 0 for the first side and 1 for the second.
    """
    defined = ~np.isnan(values) & (rows > 0)[:, None]
    present = defined.any(axis=1)
    known = present & np.isfinite(causes).all(axis=1)
    if known.sum() >= _KNOWN * present.sum():
        present, defined = known, defined & known[:, None]
    else:
        causes = causes[:, :0]
    sides = [present & (labels == side) for side in (0, 1)]
    if min(int(side.sum()) for side in sides) < FEWEST_UNITS:
        return None
    weights = np.where(present, rows / (rows + np.median(rows[present])), 0.0)
    weights /= weights.sum() / present.sum()
    filled = np.where(defined, values, 0.0).astype(np.float64)
    means = np.stack([_mean(filled, defined, weights * side) for side in sides])
    centred = np.where(defined, filled - _mean(filled, defined, weights), 0.0)
    basis = _basis(causes, weights, int(present.sum()))
    residuals = np.where(present[:, None], centred - basis @ (basis.T @ (weights[:, None] * centred)), 0.0)
    scale = np.sqrt((weights[:, None] * residuals**2).sum(axis=0) / present.sum())
    least = _SMALLEST_SCALE * np.maximum(np.abs(np.nan_to_num(means)).max(axis=0), _SMALLEST_SCALE)
    varying = scale > least
    scale = np.maximum(scale, least)
    return Streams(weights, basis, np.where(varying, residuals / scale, 0.0).astype(np.float32), scale, means, varying)


def _basis(causes: NDArray[np.float64], weights: NDArray[np.float64], units: int) -> NDArray[np.float64]:
    """Return the constant and those of *causes* that vary, orthonormal under *weights*."""
    columns = [np.ones(len(weights))]
    present = weights > 0
    for cause in causes.T:
        if units >= _UNITS_PER_CAUSE * (len(columns) + 1) and np.ptp(cause[present]) > 0:
            columns.append(np.where(present, cause, 0.0))
    root = np.sqrt(weights)
    orthogonal, upper = np.linalg.qr(root[:, None] * np.stack(columns, axis=1))
    sound = np.abs(np.diag(upper)) > _SMALLEST_SCALE * np.abs(np.diag(upper)).max()
    kept, out = orthogonal[:, sound], np.zeros((len(weights), int(sound.sum())))
    return np.asarray(np.divide(kept, root[:, None], out=out, where=root[:, None] > 0), np.float64)


def _mean(
    values: NDArray[np.float64], defined: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    weight = weights[:, None] * defined
    total = weight.sum(axis=0)
    sums = (values * weight).sum(axis=0)
    return np.asarray(np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0), np.float64)
