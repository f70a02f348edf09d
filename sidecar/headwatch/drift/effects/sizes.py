"""Effect sizes of named heads: how far the distribution of each lies from what it was, and what chance alone would give.

Distances between two histograms are never negative, so with few requests all three are above zero though nothing changed,
PSI and Jensen-Shannon most: 129 buckets hold some dozens of values.  So each is given beside what it would be if before and
since were drawn from one distribution: all requests of both sides are dealt anew into two sides as large as the real ones
(a permutation, of counts a multivariate hypergeometric draw), :data:`DEALS` times with a fixed seed.  Nothing is tested, and
nothing here raises an alarm: heads were chosen because they moved, by the same requests, so a p-value would promise too much.
Dealing takes requests to be independent; where many are alike, as repeats of one prompt are, chance gives more than this says.

Cost: :data:`DEALS` times 129 counts a head, some thirty milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from headwatch.drift.effects.buckets import check
from headwatch.drift.effects.jensen_shannon import jensen_shannon
from headwatch.drift.effects.psi import psi
from headwatch.drift.effects.wasserstein import wasserstein

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from headwatch.findings import NamedHead

FEWEST = 20
"""Requests on either side below which no sizes are given: chance would give most of them."""
DEALS = 400
"""How often requests are dealt anew."""
_SEED = 0
_RARELY = 0.95


@dataclass(frozen=True, slots=True)
class HeadCounts:
    """The requests of one head that define the feature, before and since, each counted in the bucket of its mean; B buckets."""

    named: NamedHead
    before: NDArray[np.int64]  # [B]
    since: NDArray[np.int64]  # [B]
    total_before: float
    """Sum of the values themselves, so that means carry no bucket error."""
    total_since: float


class Size(msgspec.Struct, frozen=True):
    """One distance, and the same distance by chance alone."""

    value: float
    by_chance: float
    """Median over deals: half of them gave more."""
    rarely_by_chance: float
    """One deal in twenty gave more."""


class EffectSizes(msgspec.Struct, frozen=True):
    """How far one head's distribution over requests moved.  Sizes are None where either side has too few requests."""

    layer: int
    head: int
    feature: str
    route: str
    """Empty: all routes of the model."""
    phase: Literal["prefill", "decode"]
    """Of the rows that the head is named for.  The sizes are of generated rows, whichever it is."""
    requests_before: int
    """That define the feature."""
    requests_since: int
    mean_before: float | None
    mean_since: float | None
    wasserstein: Size | None
    """In the feature's own unit."""
    jensen_shannon: Size | None
    """0 to 1."""
    psi: Size | None
    model: str = ""
    """Empty: every model."""


def effect_sizes(counts: Iterable[HeadCounts], middles: NDArray[np.float64]) -> list[EffectSizes]:
    """Return the effect sizes of each head; *middles* [B] are the values that stand for the buckets, ascending.

    Raises:
        IncompatibleHistograms: Counts and *middles* differ in their number of buckets.
    """
    return [_sizes(one, middles) for one in counts]


def _sizes(counts: HeadCounts, middles: NDArray[np.float64]) -> EffectSizes:
    check(counts.before, middles)
    check(counts.since, middles)
    requests = int(counts.before.sum()), int(counts.since.sum())
    sizes: list[Size] | list[None] = [None] * 3
    if min(requests) >= FEWEST:
        pooled = counts.before + counts.since
        dealt = np.random.default_rng(_SEED).multivariate_hypergeometric(pooled, requests[0], size=DEALS)  # [DEALS, B]
        sizes = [
            _size(distance, counts, dealt, pooled - dealt)
            for distance in (lambda before, since: wasserstein(before, since, middles), jensen_shannon, psi)
        ]
    named = counts.named
    moved, told_apart, index = sizes
    return EffectSizes(
        named.layer, named.head, named.feature, named.route, named.phase, *requests, _mean(counts.total_before, requests[0]),
        _mean(counts.total_since, requests[1]), moved, told_apart, index, named.model,
    )  # fmt: skip


def _size(
    distance: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]],
    counts: HeadCounts,
    dealt: NDArray[np.int64],
    rest: NDArray[np.int64],
) -> Size:
    chance = distance(dealt, rest)
    return Size(float(distance(counts.before, counts.since)), *map(float, np.quantile(chance, (0.5, _RARELY))))


def _mean(total: float, requests: int) -> float | None:
    return total / requests if requests else None
