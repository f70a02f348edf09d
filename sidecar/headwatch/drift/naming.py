"""Which heads a page names.

Heads are ranked by their evidence and shown with their effect, and no error is claimed for the ranking: with a finite
false-alarm interval no procedure controls the share of wrong names over an unbounded time (Dandapanthula and Ramdas, arXiv
2501.04130).  Where the set of e-detectors' Benjamini-Hochberg (e-d-BH) is not empty it is given as well: the k heads with the
most evidence, for the largest k whose k-th has at least ``K / (alpha k)``.  A page does not imply that there is one.

Cost: a sort of the heads of a feature, once a page.
Source: S. Dandapanthula, A. Ramdas, "Multiple testing in multi-stream sequential change detection", arXiv 2501.04130.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ranked(evidence: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the numbers of the *count* heads with the most *evidence* [K], the most first; ties by number."""
    return np.argsort(-evidence, kind="stable")[:count]


def confident(evidence: NDArray[np.float64], alpha: float) -> NDArray[np.int64]:
    """Return the e-d-BH set of *evidence* [K] at one false alarm in 1/alpha windows, the most evidence first."""
    order = np.argsort(-evidence, kind="stable")
    needed = len(evidence) / (alpha * np.arange(1, len(evidence) + 1))
    enough = np.flatnonzero(evidence[order] >= needed)
    return order[: enough[-1] + 1] if len(enough) else order[:0]
