"""Which rows of a step are kept when not all can be, with the probability of each known.

Every row (request, position) has a number in [0, 1) by hash, the same on all ranks and in every run.  A step keeps the
rows whose number lies below a threshold, so what a rank keeps at a lower threshold it keeps at a higher one too: ranks
that measure different times keep nested sets, without a word between them.

The threshold is the wanted probability, or, where money or room runs out before, the number of the row at which it did.
Then the weight of a kept row is one over the threshold that *it* had to stay below, given the numbers of all others; that
makes weighted sums exactly unbiased, though the threshold depends on the draw (rank conditioning, the idea of priority
sampling: Duffield, Lund, Thorup, "Priority sampling for estimation of arbitrary subset sums", JACM 2007).

Cost: about two microseconds a candidate row, in plain Python: a decode step has a handful of them, for which the calls into
numpy alone would take ten times that.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = (1 << 64) - 1
_MANTISSA = 53


@dataclass(frozen=True, slots=True)
class Choice:
    """The rows of a step that are kept."""

    kept: list[int]
    """Indices among the candidates, lowest number first."""
    weights: list[float]
    """[kept]: one over the probability of each."""
    over_limit: int
    """Rows that only the limit left out; the weights of the others speak for them."""


def seed_of(engine_id: str) -> int:
    """Return the seed of a request's rows: its engine id is the same on every rank, and another for each sample of n > 1."""
    return int.from_bytes(blake2b(engine_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) for a *position* of the request with that *seed*: SplitMix64 of both."""
    state = (seed + (position + 1) * _GOLDEN) & _WORD
    state = ((state ^ (state >> 30)) * _MIX_1) & _WORD
    state = ((state ^ (state >> 27)) * _MIX_2) & _WORD
    return float((state ^ (state >> 31)) >> (64 - _MANTISSA)) * 2.0**-_MANTISSA


def choose(
    numbers: Sequence[float], costs: Sequence[float], *, probability: float, funds: float, limit: int
) -> Choice:
    """Return the rows to keep: those with a number below *probability*, lowest first, while *funds* last, at most *limit*.

    A row is taken while any money is left before it, so one row may overdraw; were it refused instead, expensive rows
    would never be seen whenever little is left.  With no money, nothing is kept.
    """
    order = sorted((row for row, number in enumerate(numbers) if number < probability), key=numbers.__getitem__)
    spent = list(accumulate((costs[row] for row in order), initial=0.0))  # spent[i]: before the row in place i
    affordable = bisect_left(spent, funds, hi=len(order))
    taken = max(min(affordable, limit), 0)
    if taken == len(order):
        return Choice(order, [1.0 / probability] * taken, 0)
    bounds = [*(numbers[row] for row in order), probability]
    room = bounds[min(limit, len(order))]
    weights = []
    for place, row in enumerate(order[:taken]):
        # Without this row the others would have spent its cost less.  It is kept as long as it comes before the first
        # other row at which they had spent everything; a place of its own or an earlier one is rounding.
        last = bisect_left(spent, funds + costs[row], lo=place + 2, hi=len(order) + 1) - 1
        weights.append(1.0 / min(bounds[last], room))
    return Choice(order[:taken], weights, affordable - taken)
