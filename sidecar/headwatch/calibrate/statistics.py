"""Scores and how sure they are: AUROC, means, and their bootstrap intervals, for all heads at once.

Resampling is by question (or by prompt), because the two requests of one question belong together: a draw takes both or
neither.  Everything comes from the generator that is handed in, so the same seed gives the same interval.

A percentile interval shrinks to a point where every draw separates the two sides completely, and would claim certainty.
There the lower end is the exact binomial one, 0.025 ** (1 / questions): what a share could be of which no exception was
seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DRAWS = 2000
CONFIDENCE = 0.95
CHUNK_ELEMENTS = 1 << 23
"""Comparisons held at once, of some heads: 64 MiB."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Values with the ends of their 95 % intervals, of one shape; NaN where nothing was measured."""

    value: Floats
    low: Floats
    high: Floats


def auroc(right: Floats, wrong: Floats) -> Floats:
    """Return the chance that a value of *right* [n, ...] exceeds one of *wrong* [m, ...], ties counting half.

    NaNs are left out; NaN where one side has nothing else.
    """
    wins, valid = _comparisons(right, wrong)
    return _quotient(wins.sum(axis=(-2, -1)), valid.sum(axis=(-2, -1)))


def auroc_estimate(right: Floats, wrong: Floats, random: np.random.Generator) -> Estimate:
    """Return the AUROC of *right* [n, ...] against *wrong* [n, ...]; the first axis of both counts the same questions."""
    questions, shape = len(right), right.shape[1:]
    right, wrong = right.reshape(questions, -1), wrong.reshape(questions, -1)
    weights = _weights(questions, random)
    together = (weights[:, :, None] * weights[:, None, :]).reshape(DRAWS, -1)  # [DRAWS, n * n]
    size = max(1, CHUNK_ELEMENTS // questions**2)
    parts = [
        _auroc_estimate(right[:, start : start + size], wrong[:, start : start + size], together)
        for start in range(0, right.shape[1], size)
    ]
    return Estimate(*(np.concatenate(part).reshape(shape) for part in zip(*parts, strict=True)))


def mean_estimate(values: Floats, random: np.random.Generator) -> Estimate:
    """Return the mean over the first axis of *values* [n, ...]; NaN where any of them is."""
    shape = values.shape[1:]
    draws = _weights(len(values), random) @ values.reshape(len(values), -1)  # [DRAWS, K]
    low, high = _ends(draws)
    return Estimate(values.mean(axis=0), low.reshape(shape), high.reshape(shape))


def _auroc_estimate(right: Floats, wrong: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return value, low and high [K] for *right* and *wrong* [n, K], with *weights* [DRAWS, n * n] of the comparisons."""
    questions = len(right)
    wins, valid = _comparisons(right, wrong)  # [K, n, n]
    value = _quotient(wins.sum(axis=(1, 2)), valid.sum(axis=(1, 2)))
    draws = _quotient(weights @ wins.reshape(-1, questions**2).T, weights @ valid.reshape(-1, questions**2).T)  # [DRAWS, K]
    low, high = _ends(draws)
    exact = (1 - CONFIDENCE) / 2
    low = np.where(low == 1.0, exact ** (1 / questions), low)
    high = np.where(high == 0.0, 1 - exact ** (1 / questions), high)
    return value, low, high


def _comparisons(right: Floats, wrong: Floats) -> tuple[Floats, Floats]:
    """Return (wins, valid), both [..., n, m]: 1, ½ or 0 for each comparison, and whether both values are there."""
    one = np.moveaxis(right, 0, -1)[..., :, None]
    other = np.moveaxis(wrong, 0, -1)[..., None, :]
    valid = (np.isfinite(one) & np.isfinite(other)).astype(np.float64)
    return ((one > other) + 0.5 * (one == other)) * valid, valid


def _weights(count: int, random: np.random.Generator) -> Floats:
    """Return [DRAWS, count]: how often each of *count* is in a draw of as many, as a share."""
    return random.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count


def _ends(draws: Floats) -> tuple[Floats, Floats]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, (tail, 1 - tail), axis=0)
    return low, high


def _quotient(numerator: Floats, denominator: Floats) -> Floats:
    result: Floats = np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=np.asarray(denominator) > 0
    )
    return result
