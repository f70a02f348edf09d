"""ADWIN for each head: a window that is cut where the means before and after differ too much (Bifet and Gavalda 2007).

The window is kept as buckets of 1, 2, 4, … values, five of each; since heads of a replica have their values at the same time
they share the buckets' sizes, so one structure of arrays stands for all heads.  Every 32 windows each border is tried.  For
each the confidence delta is solved at which it would just be cut, so that one run serves every limit.  It is given the
baseline, which fills its window.  Held against river's by a test.

Source: river.drift.ADWIN 0.26 (adwin_c).
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.drift.peers.standard import Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block

_BUCKETS = 5
_LEAST = 5
_CLOCK = 32
_GRACE = 10


class Adwin:
    """The customary limit is -ln of delta = 0.002."""

    customary = -log(0.002)

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._standard: Standard | None = None

    def learn(self, baseline: Block) -> None:
        """Take means and deviations, and all windows of the baseline."""
        self._standard = Standard(baseline)
        self._windows = [AdaptiveWindow(baseline.values.shape[2]) for _ in range(baseline.values.shape[1])]
        for values in self._standard.z(baseline.values):
            for window, z in zip(self._windows, values, strict=True):
                if not np.isnan(z).any():
                    window.add(z)

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return the most surprising head's -ln delta over the limit, [R]."""
        assert self._standard is not None  # it has learned
        closeness = np.zeros(len(values))
        for replica, z in enumerate(self._standard.z(values)):
            window = self._windows[replica]
            if np.isnan(z).any():
                continue
            window.add(z)
            if window.ticks % _CLOCK == 0:
                closeness[replica] = window.surprise().max() / self.limit
        return closeness

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Start again as new."""
        for replica in np.flatnonzero(replicas):
            self._windows[replica] = AdaptiveWindow(len(self._windows[replica].total))


class AdaptiveWindow:
    """The buckets of the heads of one replica, and what they sum to."""

    def __init__(self, heads: int) -> None:
        self.ticks = 0
        self.width = 0
        self.total = np.zeros(heads)
        self.squares = np.zeros(heads)
        """Squared deviations from the mean of the window."""
        self._levels: list[list[NDArray[np.float64]]] = [[]]  # sums of 1, 2, 4, ... values, the oldest first

    def add(self, z: NDArray[np.float64]) -> None:
        """Take one value of each head."""
        self.ticks += 1
        self.width += 1
        if self.width > 1:
            self.squares += (self.width - 1.0) * (z - self.total / (self.width - 1.0)) ** 2 / self.width
        self.total += z
        self._levels[0].append(z)
        for level, buckets in enumerate(self._levels):
            if len(buckets) <= _BUCKETS:
                break
            if level + 1 == len(self._levels):
                self._levels.append([])
            self._levels[level + 1].append(buckets[0] + buckets[1])
            del buckets[:2]

    def surprise(self) -> NDArray[np.float64]:
        """Return -ln of the delta at which some border of the window would just be cut, the largest for each head, [K]."""
        if self.width <= _GRACE:
            return np.zeros_like(self.total)
        sizes = np.concatenate([np.full(len(buckets), 2.0**level) for level, buckets in reversed([*enumerate(self._levels)])])
        sums = np.stack([bucket for buckets in reversed(self._levels) for bucket in buckets])
        before = np.cumsum(sizes)[:-1]
        after = self.width - before
        allowed = (before >= _LEAST) & (after >= _LEAST)
        before, after = before[allowed, None], after[allowed, None]
        older = np.cumsum(sums, axis=0)[:-1][allowed]
        apart = np.abs(older / before - (self.total - older) / after)
        rarity = 1.0 / (before - _LEAST + 1.0) + 1.0 / (after - _LEAST + 1.0)
        # apart = sqrt(2 rarity variance x) + 2/3 rarity x, solved for x = ln(2 ln(width) / delta)
        straight, root = 2.0 / 3.0 * rarity, np.sqrt(2.0 * rarity * self.squares / self.width)
        x = ((np.sqrt(root**2 + 4.0 * straight * apart) - root) / (2.0 * straight)) ** 2
        surprise: NDArray[np.float64] = x.max(axis=0, initial=0.0) - np.log(2.0 * np.log(self.width))
        return surprise
