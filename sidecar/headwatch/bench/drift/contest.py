"""How a detector is run in ``bench drift``: learn, watch, page, start again; and what is counted.

A contestant sees R independent replicas at once, each with K heads of its own, and says for each window how close it is to
paging; it pages where that reaches 1.  Everybody gets the same streams, drawn from the same seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from headwatch.bench.drift.streams import source

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block

_AT_ONCE = 360
"""Windows drawn at a time."""


class Contestant(Protocol):
    """One way to page."""

    def learn(self, baseline: Block) -> None:
        """Take the baseline, windows number 0 to N-1."""

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take the values [R, K] of one window, means of *rows* [R] rows; return how close each replica is to a page, [R]."""

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Start again in the replicas that paged."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched: a null family, and how much of it."""

    family: str
    baseline: int  # windows
    replicas: int
    heads: int
    seed: int


def false_alarms(watch: Watch, windows: int, contestant: Contestant) -> NDArray[np.int64]:
    """Return how often each replica paged in *windows* windows in which nothing changed, [R]."""
    stream = source(watch.family, watch.replicas, watch.heads, np.random.default_rng(watch.seed))
    contestant.learn(stream.take(0, watch.baseline))
    pages = np.zeros(watch.replicas, np.int64)
    for first in range(watch.baseline, watch.baseline + windows, _AT_ONCE):
        block = stream.take(first, min(_AT_ONCE, watch.baseline + windows - first))
        for number, (values, rows) in enumerate(zip(block.values, block.rows, strict=True), first):
            paged = contestant.step(number, values, rows) >= 1.0
            if paged.any():
                pages += paged
                contestant.reset(paged)
    return pages


def delays(
    watch: Watch, run_in: int, most: int, change: Callable[[int, NDArray[np.float64]], NDArray[np.float64]],
    contestant: Contestant,
) -> NDArray[np.float64]:
    """Return after how many windows each replica paged, [R]; infinite where it had not after *most*.

    Nothing changes in the first *run_in* windows after the baseline (false alarms there start the detector again); from then on
    ``change(n, values)`` is what is seen in the n-th window (from 0).
    """
    stream = source(watch.family, watch.replicas, watch.heads, np.random.default_rng(watch.seed))
    contestant.learn(stream.take(0, watch.baseline))
    start = watch.baseline + run_in
    found = np.full(watch.replicas, np.inf)
    for first in range(watch.baseline, start + most, _AT_ONCE):
        block = stream.take(first, min(_AT_ONCE, start + most - first))
        for number, (values, rows) in enumerate(zip(block.values, block.rows, strict=True), first):
            seen = change(number - start, values) if number >= start else values
            paged = contestant.step(number, seen, rows) >= 1.0
            if number >= start:
                found[paged & np.isinf(found)] = number - start + 1
                if np.isfinite(found).all():
                    return found
            elif paged.any():
                contestant.reset(paged)
    return found
