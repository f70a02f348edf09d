"""headwatch itself as a contestant of ``bench drift``: one feature and stratum a replica, everything else as shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.drift.streams import HEADS_IN_LAYER
from headwatch.drift.clock import DEFAULT_FAMILIES, feature_evidence
from headwatch.drift.stratum import StratumMonitor, learn_stratum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block

WINDOW_SECONDS = 60.0


class Headwatch:
    """The pager, for replicas that stand where features stand in the product; each has a clock of its own."""

    def __init__(self, interval_windows: float) -> None:
        """*interval_windows* is the mean time between false alarms that is promised."""
        self.interval = interval_windows
        self.monitor: StratumMonitor | None = None

    def learn(self, baseline: Block) -> None:
        """Learn as ``headwatch baseline learn`` does."""
        windows, replicas, heads = baseline.values.shape
        names = tuple(f"replica {number}" for number in range(replicas))
        layer = np.arange(heads) // HEADS_IN_LAYER
        learned = learn_stratum(names, layer, np.arange(windows), WINDOW_SECONDS, baseline.values, baseline.rows)
        self.monitor = StratumMonitor(learned)

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the evidence of each replica over what pages, [R]."""
        assert self.monitor is not None  # it has learned
        self.monitor.step(number, values, rows)
        return feature_evidence(self.monitor.evidence(), DEFAULT_FAMILIES) / self.interval

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Start again where it paged."""
        assert self.monitor is not None
        self.monitor.reset(replicas)
