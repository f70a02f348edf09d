"""The null cells of ``bench drift``: how often headwatch pages while nothing changes, held against what it promises.

A cell is a null family and the length of the baseline.  Promised is one page a day (one in 1,440 windows), which is far more
than anybody wants, so that there is something to count.  The product sends no page before a day of baseline; cells of eight
hours are run all the same, as if somebody had lowered that minimum, except where it is exactly what the minimum is for: a daily
cycle that was not seen once.  That cell is run and shown, and marked as not paging.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log
from typing import TYPE_CHECKING

import msgspec

from headwatch.bench.drift.contest import Watch, false_alarms
from headwatch.bench.drift.fleet import Newcomers, TenStrata
from headwatch.bench.drift.pager import Headwatch
from headwatch.bench.drift.streams import DAY_WINDOWS, FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

INTERVAL_WINDOWS = float(DAY_WINDOWS)
"""Windows between two false alarms that are promised."""
BASELINES = {"8 hours": 480, "1 day": 1440, "7 days": 10_080}
MANY_HEADS = 512
FAMILIES_OF_MANY_HEADS = ("AR .9 with sampling noise", "daily cycle", "changing sampling rate")
"""Those in which pools of many heads see what pools of few do not: small errors of what is foreseen."""
NOT_PAGING = {("daily cycle", 480)}
_CONFIDENCE = 0.975


@dataclass(frozen=True, slots=True)
class NullSize:
    """How much of each null cell is watched."""

    replicas: int
    heads: int
    days: float
    seed: int


class NullCell(msgspec.Struct, frozen=True):
    """One family with one length of baseline."""

    family: str
    baseline: str
    heads: int
    streams: int
    """Streams on one clock: strata x features x heads."""
    days: float
    """Watched, over all replicas."""
    expected: float
    """Pages that the promise allows in that time."""
    pages: int
    ratio: float
    """Pages over those that the promise allows."""
    upper: float
    """Upper end of the ratio's 95 % interval; replicas may differ."""
    paging: bool
    """Whether the product would page on such a baseline at all; the others do not count."""


def cells(size: NullSize) -> Iterator[NullCell]:
    """Yield all null cells."""
    for place, baseline in enumerate(BASELINES):
        yield from _side_by_side(tuple(FAMILIES), baseline, size.heads, size.replicas, size, size.seed + 100 * place)
    yield from _side_by_side(FAMILIES_OF_MANY_HEADS, "1 day", MANY_HEADS, size.replicas // 2, size, size.seed + 300)
    for contestant in (TenStrata, Newcomers):
        heads = size.heads // 4
        pager = contestant(size.replicas // 2, heads, INTERVAL_WINDOWS, size.seed + 1000)
        pages = pager.watch(2 * round(size.days * DAY_WINDOWS))
        yield cell(contestant.name, "1 day", heads, pager.streams, 2.0 * size.days, pages)


def _side_by_side(
    families: tuple[str, ...], baseline: str, heads: int, replicas: int, size: NullSize, seed: int
) -> Iterator[NullCell]:
    watches = [
        Watch(family, BASELINES[baseline], replicas, heads, seed + place) for place, family in enumerate(families)
    ]
    found = false_alarms(watches, round(size.days * DAY_WINDOWS), Headwatch(INTERVAL_WINDOWS))
    for watch, pages in zip(watches, found, strict=True):
        name = watch.family if heads == size.heads else f"{watch.family}, {heads} heads"
        paging = (watch.family, watch.baseline) not in NOT_PAGING
        yield cell(name, baseline, heads, heads, size.days, pages, paging=paging)


def cell(
    family: str, baseline: str, heads: int, streams: int, days: float, pages: NDArray[np.int64], *, paging: bool = True
) -> NullCell:
    """Return the cell of *pages* [R], each in *days* days."""
    expected = days * len(pages) * DAY_WINDOWS / INTERVAL_WINDOWS
    total = int(pages.sum())
    return NullCell(
        family, baseline, heads, streams, days * len(pages), expected, total, round(total / expected, 3),
        round(upper_limit(pages) / expected, 3), paging,
    )


def upper_limit(pages: NDArray[np.int64]) -> float:
    """Return the upper end of the 95 % interval of the expected sum of *pages* [R].

    That of Poisson (Garwood 1936), for counts over how much more replicas differ than Poisson would let them.
    """
    total = float(pages.sum())
    dispersion = max(1.0, float(pages.var(ddof=1) / pages.mean())) if len(pages) > 1 and total else 1.0
    count = total / dispersion
    low, high = count, count * 3.0 + 20.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if _poisson_at_most(int(count), middle) > 1.0 - _CONFIDENCE:
            low = middle
        else:
            high = middle
    return dispersion * high


def _poisson_at_most(count: int, mean: float) -> float:
    return sum(exp(k * log(mean) - mean - lgamma(k + 1)) for k in range(count + 1)) if mean > 0 else 1.0
