"""Jensen-Shannon distance between two histograms of one attention head.

The root of the mean divergence of both from their midpoint, with logarithms to base 2: a metric in [0, 1], 0 where they agree
and 1 where they share no bucket.  Unlike PSI it cannot grow without bound through one rare bucket.  An effect size.

Source: Lin, "Divergence measures based on the Shannon entropy", 1991; Endres and Schindelin 2003.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift.effects.buckets import check, probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray


def jensen_shannon(reference: NDArray[np.generic], current: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the distance of *current* from *reference*, counts [..., B] each, as [...] in [0, 1].

    Raises:
        IncompatibleHistograms: Their numbers of buckets differ.
    """
    check(reference, current)
    p, q = probabilities(reference), probabilities(current)
    middle = (p + q) / 2.0
    divergence = (p * np.log2(p / middle) + q * np.log2(q / middle)).sum(axis=-1) / 2.0
    distance: NDArray[np.float64] = np.sqrt(np.clip(divergence, 0.0, 1.0))
    return distance
