"""Windows of many engines become one window of each stratum, in order, each once.

One pager watches all engines that report to a sidecar, so what it takes is merged beforehand: sums and weights of a stratum
are added over engines.  By the clock a window is released when every engine that is alive has sent it or a later one, or when
it is overdue; a window in which nothing came is released as well, empty, so that silence is seen.  Where windows close by
count, one is released when its requests have ended or a later one has begun.  What comes after its window was released, or
twice, changes nothing and is counted.

Cost: the sums of the open windows, 16 bytes a stratum, feature and head; at most :data:`MOST_OPEN` windows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headwatch.observed import StratumWindow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from headwatch.records import Stratum, WindowBatch

OVERDUE_WINDOWS = 2
"""An engine that is so many windows behind holds up the others no longer."""
MOST_OPEN = 64
"""Windows that may be open; beyond, the oldest are released as they are (a clock that leaps ahead)."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """One window, all engines together."""

    number: int
    start_ns: int
    end_ns: int
    strata: dict[Stratum, StratumWindow]


@dataclass(slots=True)
class _Sums:
    total: NDArray[np.float64]  # [F, K]
    weight: NDArray[np.float64]  # [F, K]
    rows: NDArray[np.float64]  # [F]
    heads: int
    length: float = 0.0
    """Sum over rows of log2 of what they see, of those engines that say it, ..."""
    length_rows: float = 0.0
    """... and how many rows that are."""

    def window(self) -> StratumWindow:
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(self.weight > 0, self.total / self.weight, np.nan)
        length = self.length / self.length_rows if self.length_rows else np.nan
        return StratumWindow(values, self.rows, np.array([length]), self.heads)


@dataclass(slots=True)
class _Open:
    start_ns: int = 2**63 - 1
    end_ns: int = 0
    strata: dict[Stratum, _Sums] = field(default_factory=dict)
    lives: set[tuple[str, int]] = field(default_factory=set)
    ended: int = 0


class Assembler:
    """Holds the windows that are not complete.  Not safe from threads."""

    def __init__(self, features: tuple[str, ...], window_ns: int, released: int = -1, *, requests: int = 0) -> None:
        """*released* is the number of the last window that was released in an earlier life.

        *requests*: a window closes when so many requests have ended; 0: by the clock.
        """
        self._features = features
        self._window_ns = window_ns
        self._requests = requests
        self.released = released
        self._open: dict[int, _Open] = {}
        self._latest: dict[str, int] = {}
        self._alive_from: int | None = None
        """By the clock: the window in which this life began."""
        self.counters: Counter[str] = Counter()

    def add(self, batch: WindowBatch) -> None:
        """Take one engine's window."""
        number = batch.number if batch.number >= 0 else batch.start_ns // self._window_ns
        if number <= self.released:
            self.counters["late_windows"] += 1
            return
        window = self._open.setdefault(number, _Open())
        life = (batch.worker.instance, batch.worker.start_ns)  # an engine that starts anew goes on with the same window
        if life in window.lives:
            self.counters["duplicate_windows"] += 1
            return
        window.lives.add(life)
        window.start_ns, window.end_ns = min(window.start_ns, batch.start_ns), max(window.end_ns, batch.end_ns)
        self._latest[life[0]] = max(number, self._latest.get(life[0], number))
        chosen = [batch.features.index(name) for name in self._features]
        for index, stratum in enumerate(batch.strata):
            sums = self._sums(batch, index, chosen)
            known = window.strata.get(stratum)
            if known is None:
                window.strata[stratum] = sums
            elif known.total.shape != sums.total.shape:
                self.counters["other_shape"] += 1  # two models of one name and revision; the first one counts
            else:
                known.total += sums.total
                known.weight += sums.weight
                known.rows += sums.rows
                known.length += sums.length
                known.length_rows += sums.length_rows

    def ended(self, number: int, time_ns: int) -> None:
        """Note that a request of window *number* has ended."""
        if number > self.released:
            window = self._open.setdefault(number, _Open())
            window.ended += 1
            window.start_ns, window.end_ns = min(window.start_ns, time_ns), max(window.end_ns, time_ns)

    def alive(self, now_ns: int) -> None:
        """Note that from *now_ns* on a window in which nothing comes is one in which nothing happened."""
        if self._alive_from is None:
            self._alive_from = now_ns // self._window_ns

    def release(self, now_ns: int, *, everything: bool = False) -> Iterator[Assembled]:
        """Yield the windows that are complete at *now_ns*, oldest first."""
        self._refuse_the_future(now_ns, everything=everything)
        for number in list(self._numbers(now_ns)):
            if not (everything or len(self._open) > MOST_OPEN or self._complete(number, now_ns)):
                return
            window = self._open.pop(number, _Open())
            self.released = number
            start_ns, end_ns = window.start_ns, window.end_ns
            if not self._requests:
                start_ns, end_ns = number * self._window_ns, (number + 1) * self._window_ns
            yield Assembled(number, start_ns, end_ns, {stratum: sums.window() for stratum, sums in window.strata.items()})

    def _refuse_the_future(self, now_ns: int, *, everything: bool) -> None:
        """Forget windows of clocks that run far ahead: once released, they would make everything else late."""
        if self._requests:
            return
        last = now_ns // self._window_ns + (0 if everything else MOST_OPEN)
        for number in [number for number in self._open if number > last]:
            del self._open[number]
            self.counters["future_windows"] += 1

    def _numbers(self, now_ns: int) -> Iterator[int]:
        """Yield the windows that could be released, in order: those that are open, and by the clock also empty ones."""
        over = now_ns // self._window_ns
        empty: set[int] = set()
        if not self._requests and self._alive_from is not None:
            empty = set(range(max(self.released + 1, self._alive_from, over - MOST_OPEN), over))
        yield from sorted(empty | self._open.keys())

    def _complete(self, number: int, now_ns: int) -> bool:
        if self._requests:
            return self._open[number].ended >= self._requests or max(self._open) > number
        now = now_ns // self._window_ns
        if now - number > OVERDUE_WINDOWS:
            return True
        behind = any(latest < number and number - latest <= OVERDUE_WINDOWS for latest in self._latest.values())
        return now > number and not behind

    def _sums(self, batch: WindowBatch, index: int, chosen: list[int]) -> _Sums:
        flat = (len(chosen), -1)
        rows = batch.count[index, chosen].reshape(flat).max(axis=1).astype(np.float64)
        sums = _Sums(
            batch.total[index, chosen].reshape(flat).astype(np.float64),
            batch.weight[index, chosen].reshape(flat).astype(np.float64), rows, batch.total.shape[3],
        )  # fmt: skip
        length = np.nan if batch.log_length is None else float(batch.log_length[index])
        if not np.isnan(length):
            sums.length_rows = float(batch.rows[index])
            sums.length = length * sums.length_rows
        return sums
