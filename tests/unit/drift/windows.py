"""Observed windows of a small deployment: two routes, two scopes, twenty-four heads; healthy, or with a change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from headwatch.config import DriftConfig
from headwatch.history.codec import rounded
from headwatch.observed import DRIFT_FEATURES, ObservedWindow, Scope, SignalValue, StratumWindow
from headwatch.records import Stratum

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE = 60 * 10**9
HEADS, LAYERS = 8, 3
CHAT = Stratum("m", "r1", "", "chat", "512-1k", "decode")
SEARCH = replace(CHAT, route="search")
RARE = replace(CHAT, route="rare")
SCOPES = {"chat": Scope("m", "", "chat"), "search": Scope("m", "", "search")}
SIGNALS = {"grounding_ratio": (0.6, 0.02), "document_mass": (0.3, 0.02), "instruction_focus": (0.4, 0.02)}
CONFIG = DriftConfig(
    interval_windows=2000.0, min_baseline_windows=60, max_baseline_windows=400, learning_lag_windows=10, resolve_windows=4
)


@dataclass(frozen=True)
class Deployment:
    """What windows are made of.  Everything is a function of the seed and the window's number."""

    seed: int = 1
    heads_shift: float = 0.0
    """In standard deviations of a window, of every third head, from *begins* to *ends*."""
    signal_shift: dict[str, float] = field(default_factory=dict)
    begins: int = 10**9
    ends: int = 10**9
    strata: tuple[Stratum, ...] = (CHAT, SEARCH)
    rows: float = 40.0
    first: int = 28_000_000
    """Number of the first window: minutes since 1970."""

    def window(self, index: int) -> ObservedWindow:
        """Return the *index*-th window."""
        number = self.first + index
        random = np.random.default_rng((self.seed, index))
        changed = self.begins <= index < self.ends
        strata = {}
        for stratum in self.strata:
            level = np.linspace(0.2, 0.8, HEADS * LAYERS)
            noise = random.standard_normal((len(DRIFT_FEATURES), HEADS * LAYERS))
            if changed:
                noise[:, ::3] += self.heads_shift
            few = 1.0 if stratum == RARE else self.rows
            length = np.array([9.0 + 0.1 * random.standard_normal()])
            values = rounded(level + 0.01 * noise)
            strata[stratum] = StratumWindow(values, np.full(len(DRIFT_FEATURES), few), length, HEADS)
        signals = {
            scope: {
                name: SignalValue(mean + sd * (random.standard_normal() + changed * self.signal_shift.get(name, 0.0)), 8.0)
                for name, (mean, sd) in SIGNALS.items()
            }
            for scope in SCOPES.values()
        }
        traffic = {"requests": 16.0, "route:chat": 8.0, "route:search": 8.0}
        telemetry = {"capture_up": 1.0, "workers": 1.0, "sample_rate": 0.5}
        return ObservedWindow(number, number * MINUTE, (number + 1) * MINUTE, strata, signals, traffic, telemetry)

    def windows(self, first: int, last: int) -> Iterator[ObservedWindow]:
        """Yield the windows from *first* to below *last*."""
        return (self.window(index) for index in range(first, last))
