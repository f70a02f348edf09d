"""Counts of two histograms as probabilities: what the effect sizes have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.errors import IncompatibleHistograms

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIOR = 0.5
"""Pseudo-count of every bucket: without it one empty bucket would make an index infinite."""


def probabilities(counts: NDArray[np.generic], prior: float = PRIOR) -> NDArray[np.float64]:
    """Return *counts* [..., B] as probabilities, each bucket raised by *prior*.

    Histograms have 129 buckets and often a dozen values; so the prior is spread over the buckets as one value is, not given to
    each of them: ``prior`` is the weight of all buckets together, in values.
    """
    values = counts.astype(np.float64)
    buckets = values.shape[-1]
    raised: NDArray[np.float64] = (values + prior / buckets) / (values.sum(axis=-1, keepdims=True) + prior)
    return raised


def check(reference: NDArray[np.generic], current: NDArray[np.generic]) -> None:
    """Refuse histograms whose buckets cannot be compared.

    Raises:
        IncompatibleHistograms: Their numbers of buckets differ.
    """
    if reference.shape[-1] != current.shape[-1]:
        raise IncompatibleHistograms(
            f"a histogram of {reference.shape[-1]} buckets cannot be compared with one of {current.shape[-1]}"
        )
