"""Windows of many engines become one window of each stratum, in order, each once.

One pager watches all engines that report to a sidecar, so what it takes is merged beforehand: sums and weights of a stratum
are added over engines.  A window is released when every engine that is alive has sent it or a later one, or when it is
overdue.  What comes after its window was released, or twice, changes nothing and is counted.

Cost: the sums of the open windows, 16 bytes a stratum, feature and head.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from headwatch.records import Stratum, WindowBatch

OVERDUE_WINDOWS = 2
"""An engine that is so many windows behind holds up the others no longer."""


@dataclass(frozen=True, slots=True)
class StratumWindow:
    """One stratum in one window, all engines together.  F features, K heads (layer by layer)."""

    values: NDArray[np.float64]  # [F, K] mean of the rows; NaN where no row defines it
    rows: NDArray[np.float64]  # [F] rows that define the feature in at least one head


@dataclass(slots=True)
class _Sums:
    total: NDArray[np.float64]  # [F, K]
    weight: NDArray[np.float64]  # [F, K]
    rows: NDArray[np.float64]  # [F]

    def window(self) -> StratumWindow:
        with np.errstate(invalid="ignore", divide="ignore"):
            return StratumWindow(np.where(self.weight > 0, self.total / self.weight, np.nan), self.rows)


@dataclass(slots=True)
class _Open:
    strata: dict[Stratum, _Sums] = field(default_factory=dict)
    engines: set[str] = field(default_factory=set)


class Assembler:
    """Holds the windows that are not complete.  Not safe from threads."""

    def __init__(self, features: tuple[str, ...], window_ns: int, released: int = -1) -> None:
        """*released* is the number of the last window that was released in an earlier life."""
        self._features = features
        self._window_ns = window_ns
        self.released = released
        self._open: dict[int, _Open] = {}
        self._latest: dict[str, int] = {}
        self.counters: Counter[str] = Counter()

    def add(self, batch: WindowBatch) -> None:
        """Take one engine's window."""
        number = batch.start_ns // self._window_ns
        engine = batch.worker.instance
        if number <= self.released:
            self.counters["late_windows"] += 1
            return
        window = self._open.setdefault(number, _Open())
        if engine in window.engines:
            self.counters["duplicate_windows"] += 1
            return
        window.engines.add(engine)
        self._latest[engine] = max(number, self._latest.get(engine, number))
        chosen = [batch.features.index(name) for name in self._features]
        for index, stratum in enumerate(batch.strata):
            total = batch.total[index, chosen].reshape(len(chosen), -1)
            weight = batch.weight[index, chosen].reshape(len(chosen), -1).astype(np.float64)
            rows = batch.count[index, chosen].reshape(len(chosen), -1).max(axis=1).astype(np.float64)
            sums = window.strata.get(stratum)
            if sums is None:
                window.strata[stratum] = _Sums(total.copy(), weight, rows)
            elif sums.total.shape != total.shape:
                self.counters["other_shape"] += 1  # two models of one name and revision; the first one counts
            else:
                sums.total += total
                sums.weight += weight
                sums.rows += rows

    def release(self, now_ns: int, *, everything: bool = False) -> Iterator[tuple[int, dict[Stratum, StratumWindow]]]:
        """Yield the windows that are complete at *now_ns*, oldest first: number, and what each stratum has in it."""
        now = now_ns // self._window_ns
        for number in sorted(self._open):
            overdue = everything or now - number > OVERDUE_WINDOWS
            behind = [
                engine for engine, latest in self._latest.items() if latest < number and number - latest <= OVERDUE_WINDOWS
            ]
            if not overdue and (behind or now <= number):
                return
            window = self._open.pop(number)
            self.released = number
            yield number, {stratum: sums.window() for stratum, sums in window.strata.items()}
