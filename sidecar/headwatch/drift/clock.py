"""One clock for everything: when the evidence of all strata, features and families together pages.

Each family's evidence M averages to at most the number of windows that have passed while nothing has changed.  So does any
average of them with weights fixed beforehand, however they depend on each other, and the mean time until that average
reaches 1/alpha is at least 1/alpha windows.  There is no correction for the number of heads: it is in the average.

A stratum that is yet to come gets its weight from a share that is reserved for it: the j-th newcomer has
``reserve / (j (j + 1))``, which sums to the reserve however many there are.

With the weights w of strata, f of families and v of features, each fixed beforehand, the clock shows::

    clock = sum over strata w (sum over features v (sum over families f M))        and pages at 1/alpha

Cost: a multiplication a stratum, feature and family, a few hundred a window.
Source: J. Shin, A. Ramdas, A. Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", arXiv
2203.03532 (averages of e-detectors are e-detectors).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DEFAULT_FAMILIES: Mapping[str, float] = {
    "heads.mean": 0.4, "heads.spread": 0.1, "level.1": 0.2, "energy.1": 0.1, "energy.8": 0.05, "lasting.8": 0.15,
}
"""Single heads have half of the weight: averages over heads mislead where they are all that is looked at."""
RESERVE = 0.2


def newcomer_weight(order: int, reserve: float = RESERVE) -> float:
    """Return the weight of the *order*-th stratum (1, 2, …) that came after the weights were fixed."""
    return reserve / (order * (order + 1))


def feature_evidence(families: Mapping[str, NDArray[np.float64]], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the evidence of each feature, [F]: the average over *families* ([F] each) by *weights*.

    Families that the baseline is too short for leave their weight to the others.
    """
    total = sum(weights[name] for name in families)
    return np.asarray(sum(weights[name] / total * evidence for name, evidence in families.items()), np.float64)


def stratum_evidence(
    families: Mapping[str, NDArray[np.float64]], weights: Mapping[str, float], features: NDArray[np.float64] | None = None
) -> float:
    """Return the evidence of one stratum: the average over its *families* and, with weights [F] that sum to 1, *features*."""
    evidence = feature_evidence(families, weights)
    return float(evidence.mean() if features is None else evidence @ features)


def combined(evidence: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return what the clock shows: the sum over strata of weight times evidence."""
    return float(np.sum([weights[name] * value for name, value in evidence.items()]))
