"""Population stability index between two histograms of one attention head.

PSI = sum((p - q) ln(p / q)) is symmetric, non-negative, and zero only when the two distributions agree bucket by bucket.  It
needs counts alone, so a baseline costs one small array a head.  It explains an alarm; it never raises one: its customary
threshold of 0.2 is passed by chance alone where windows hold few rows.

Source: Karakoulas, "Empirical validation of retail credit-scoring models", RMA Journal 2004; Jeffreys 1946.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift.effects.buckets import check, probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray


def psi(reference: NDArray[np.generic], current: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the PSI of *current* against *reference*, counts [..., B] each, as [...].

    Raises:
        IncompatibleHistograms: Their numbers of buckets differ.
    """
    check(reference, current)
    p, q = probabilities(reference), probabilities(current)
    index: NDArray[np.float64] = ((p - q) * np.log(p / q)).sum(axis=-1)
    return index
