"""Wasserstein distance between two histograms of one attention head: how far the values moved, in their own unit.

W1 is the area between the two cumulative distributions.  For attention shares it reads plainly: 0.05 means that the values lie
0.05 apart on average.  Values count at the middle of their bucket, so it errs by half a bucket (4.5 % of a value) at most.

Source: Vallender, "Calculation of the Wasserstein distance between probability distributions on the line", 1974.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift.effects.buckets import check

if TYPE_CHECKING:
    from numpy.typing import NDArray


def wasserstein(
    reference: NDArray[np.generic], current: NDArray[np.generic], middles: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return W1 between two arrays of counts [..., B] of buckets whose *middles* [B] ascend; NaN where one is empty.

    Raises:
        IncompatibleHistograms: Their numbers of buckets differ.
    """
    check(reference, current)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = reference.cumsum(axis=-1) / reference.sum(axis=-1, keepdims=True)
        q = current.cumsum(axis=-1) / current.sum(axis=-1, keepdims=True)
    distance: NDArray[np.float64] = (np.abs(p - q)[..., :-1] * np.diff(middles)).sum(axis=-1)
    return distance
