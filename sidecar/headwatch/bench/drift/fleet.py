"""Many strata and features on one clock, and strata that come later: the null cells that are about the clock itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from headwatch.bench.drift.pager import WINDOW_SECONDS
from headwatch.bench.drift.streams import DAY_WINDOWS, FAMILIES, HEADS_IN_LAYER, source
from headwatch.drift.clock import DEFAULT_FAMILIES, RESERVE, combined, newcomer_weight, stratum_evidence
from headwatch.drift.stratum import StratumMonitor, learn_stratum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Source

FEATURES = 6


class Stratum:
    """One stratum of R replicas, six features each, whose streams are one null family."""

    def __init__(self, family: str, replicas: int, heads: int, seed: int) -> None:
        self._replicas = replicas
        self._heads = heads
        self._stream: Source = source(family, replicas * FEATURES, heads, np.random.default_rng(seed))
        self._monitor: StratumMonitor | None = None

    def learn(self, first: int, windows: int) -> None:
        """Learn from the *windows* windows that begin with number *first*."""
        block = self._stream.take(first, windows)
        names = tuple(f"replica {replica}, {feature}" for replica in range(self._replicas) for feature in range(FEATURES))
        layer = np.arange(self._heads) // HEADS_IN_LAYER
        numbers = np.arange(first, first + windows)
        self._monitor = StratumMonitor(learn_stratum(names, layer, numbers, WINDOW_SECONDS, block.values, block.rows))

    def step(self, number: int) -> NDArray[np.float64]:
        """Take window *number*; return the stratum's evidence in each replica, [R]."""
        assert self._monitor is not None  # it has learned
        block = self._stream.take(number, 1)
        self._monitor.step(number, block.values[0], block.rows[0])
        families = {name: found.reshape(self._replicas, FEATURES) for name, found in self._monitor.evidence().items()}
        return np.array([
            stratum_evidence({name: found[replica] for name, found in families.items()}, DEFAULT_FAMILIES)
            for replica in range(self._replicas)
        ])

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Start again in the replicas that paged."""
        assert self._monitor is not None
        self._monitor.reset(np.repeat(replicas, FEATURES))


class TenStrata:
    """Ten strata of six features, each of another null family; all weights are fixed beforehand."""

    name: ClassVar[str] = "ten strata, six features"
    late: ClassVar[int] = 0

    def __init__(self, replicas: int, heads: int, interval: float, seed: int, baseline: int = DAY_WINDOWS) -> None:
        """*interval* is promised between two false alarms, in windows; *baseline* windows are learned from."""
        self._replicas, self._interval, self._baseline = replicas, interval, baseline
        families = [name for name in FAMILIES if name != "daily cycle"]
        self._strata = [Stratum(families[number], replicas, heads, seed + number) for number in range(10)]
        self.streams = 10 * FEATURES * heads

    def watch(self, windows: int) -> NDArray[np.int64]:
        """Return how often each replica paged in *windows* windows, [R]."""
        early = len(self._strata) - self.late
        for stratum in self._strata[:early]:
            stratum.learn(0, self._baseline)
        pages = np.zeros(self._replicas, np.int64)
        watching = early
        for number in range(self._baseline, self._baseline + windows):
            due = self._baseline + (watching - early) * windows // (self.late + 1)
            if watching < len(self._strata) and number >= due:
                self._strata[watching].learn(number - self._baseline, self._baseline)
                watching += 1
            found = {str(place): stratum.step(number) for place, stratum in enumerate(self._strata[:watching])}
            weights = self._weights(early, watching)
            shown = np.array([
                combined({name: value[replica] for name, value in found.items()}, weights) for replica in range(self._replicas)
            ])
            paged = shown >= self._interval
            if paged.any():
                pages += paged
                for stratum in self._strata[:watching]:
                    stratum.reset(paged)
        return pages

    def _weights(self, early: int, watching: int) -> dict[str, float]:
        share = (1.0 - RESERVE if self.late else 1.0) / early
        return {
            str(place): share if place < early else newcomer_weight(place - early + 1) for place in range(watching)
        }


class Newcomers(TenStrata):
    """The same, but six of the ten come later, one after the other, and live off the reserve."""

    name: ClassVar[str] = "new strata"
    late: ClassVar[int] = 6
