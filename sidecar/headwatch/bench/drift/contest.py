"""How a detector is run in ``bench drift``: learn, watch, page, start again; and what is counted.

A contestant sees R independent replicas at once, each with K heads of its own, and says for each window how close it is to
paging; it pages where that reaches 1.  Everybody gets the same streams, drawn from the same seeds.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from headwatch.bench.drift.streams import Together, source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headwatch.bench.drift.shifts import Applied
    from headwatch.bench.drift.streams import Block, Source

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

    def source(self) -> Source:
        """Return the stream from its beginning."""
        return source(self.family, self.replicas, self.heads, np.random.default_rng(self.seed))

    def begin(self, contestant: Contestant) -> Source:
        """Let *contestant* learn the baseline; return the stream as it goes on."""
        stream = self.source()
        contestant.learn(stream.take(0, self.baseline))
        return stream


def windows_of(
    stream: Source, first: int, count: int
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield number, values [R, K] and rows [R] of *count* windows from the one numbered *first*."""
    for start in range(first, first + count, _AT_ONCE):
        block = stream.take(start, min(_AT_ONCE, first + count - start))
        yield from zip(range(start, start + len(block.values)), block.values, block.rows, strict=True)


def false_alarms(watches: Sequence[Watch], windows: int, contestant: Contestant) -> list[NDArray[np.int64]]:
    """Return for each of *watches* how often each replica paged in *windows* windows in which nothing changed, [R].

    They have the same heads and the same length of baseline; *contestant* watches all at once, a clock for each replica.
    """
    stream = Together([watch.source() for watch in watches])
    baseline = watches[0].baseline
    contestant.learn(stream.take(0, baseline))
    pages = np.zeros(sum(watch.replicas for watch in watches), np.int64)
    for number, values, rows in windows_of(stream, baseline, windows):
        paged = contestant.step(number, values, rows) >= 1.0
        if paged.any():
            pages += paged
            contestant.reset(paged)
    return np.split(pages, np.cumsum([watch.replicas for watch in watches])[:-1])


def closeness(watch: Watch, windows: int, contestant: Contestant) -> NDArray[np.float64]:
    """Return how close each replica was to a page in each of *windows* windows if it never starts again, [N, R]."""
    stream = watch.begin(contestant)
    return np.stack([contestant.step(*window) for window in windows_of(stream, watch.baseline, windows)])


def delays(
    watch: Watch, run_in: int, most: int, changes: list[Applied], contestant: Contestant, give_up: list[int] | None = None
) -> list[NDArray[np.float64]]:
    """Return for each of *changes* after how many windows each replica paged, [R]; infinite where it had not after *most*.

    Nothing changes in the first *run_in* windows after the baseline (false alarms there start the detector again); from then on
    each change meets a copy of the detector as it is then, on the same windows.  *give_up*: windows for each change after
    which it is not looked at any longer.
    """
    stream = watch.begin(contestant)
    for number, values, rows in windows_of(stream, watch.baseline, run_in):
        paged = contestant.step(number, values, rows) >= 1.0
        if paged.any():
            contestant.reset(paged)
    start = watch.baseline + run_in
    block = stream.take(start, most)
    return [
        _delay(deepcopy(contestant), start, block, change, most if give_up is None else min(most, give_up[number]))
        for number, change in enumerate(changes)
    ]


def _delay(contestant: Contestant, start: int, block: Block, change: Applied, most: int) -> NDArray[np.float64]:
    found = np.full(block.values.shape[1], np.inf)
    for since, (values, rows) in enumerate(zip(block.values[:most], block.rows[:most], strict=True)):
        paged = contestant.step(start + since, change(since, values), rows) >= 1.0
        found[paged & np.isinf(found)] = since + 1
        if np.isfinite(found).all():
            break
    return found
