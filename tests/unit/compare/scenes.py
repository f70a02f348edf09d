"""Windows that are drawn, not recorded: a healthy stream of them, and what can be changed in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headwatch.compare.gathering import side_of
from headwatch.findings import CanaryExhibit
from headwatch.observed import DRIFT_FEATURES, ObservedWindow, Scope, SignalValue, StratumWindow
from headwatch.records import Stratum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.compare.side import Side

LAYERS, HEADS = 3, 4
STREAMS = LAYERS * HEADS
MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Scene:
    """How windows are drawn.  Shifts are in standard deviations of a window."""

    seed: int = 0
    windows: int = 30
    first: int = 0
    model: str = "m"
    revision: str = "r1"
    adapter: str = ""
    routes: dict[str, float] = field(default_factory=lambda: {"support": 0.6, "search": 0.4})
    heads: int = HEADS
    streams: int = STREAMS
    memory: float = 0.0
    """AR(1) coefficient from one window to the next."""
    common: float = 0.5
    """Share of the variance that all heads have in common."""
    shift: float = 0.0
    shifted: Sequence[int] = ()
    """Streams that are shifted; empty: all."""
    length: float = 9.0
    """Mean log2 of the visible tokens."""
    slope: float = 0.0
    """What one doubling of the length adds to every stream, in standard deviations."""
    signals: dict[str, float] = field(default_factory=lambda: {"grounding_ratio": 0.6, "instruction_focus": 0.3})
    templates: dict[str, float] = field(default_factory=lambda: {"aa": 1.0})
    telemetry: dict[str, float] = field(default_factory=lambda: {"capture_up": 1.0, "sample_rate": 0.1})
    canary_failed: bool | None = None
    spread: float = 1.0


def windows_of(scene: Scene) -> list[ObservedWindow]:
    """Return the windows of *scene*."""
    random = np.random.default_rng(scene.seed)
    state = {route: random.normal(size=(len(DRIFT_FEATURES), scene.streams)) for route in scene.routes}
    level = np.linspace(0.2, 0.8, scene.streams)
    shifted = np.zeros(scene.streams)
    shifted[list(scene.shifted) or slice(None)] = scene.shift
    out = []
    for place in range(scene.windows):
        strata, signals, traffic = {}, {}, {"requests": 0.0, "prompt_log2": 0.0}
        for route, share in scene.routes.items():
            requests = float(random.poisson(20 * share) + 1)
            length = scene.length + random.normal() * 0.2
            draw = np.sqrt(scene.common) * random.normal(size=(len(DRIFT_FEATURES), 1))
            draw = draw + np.sqrt(1 - scene.common) * random.normal(size=state[route].shape)
            state[route] = scene.memory * state[route] + np.sqrt(1 - scene.memory**2) * draw
            moved = scene.spread * state[route] + shifted + scene.slope * (length - 9.0)
            stratum = Stratum(scene.model, scene.revision, scene.adapter, route, "512-1k", "decode")
            rows = np.full(len(DRIFT_FEATURES), requests * 8)
            strata[stratum] = StratumWindow(level + 0.01 * moved, rows, np.array([length]), scene.heads)
            scope = Scope(scene.model, scene.adapter, route)
            signals[scope] = {
                name: SignalValue(mean + 0.05 * random.normal(), requests) for name, mean in scene.signals.items()
            }
            traffic["requests"] += requests
            traffic["prompt_log2"] += requests * length
            traffic[f"route:{route}"] = requests
            for digest, part in scene.templates.items():
                traffic[f"template:{route}:{digest}"] = requests * part
        number = scene.first + place
        out.append(
            ObservedWindow(
                number, number * MINUTE_NS, (number + 1) * MINUTE_NS, strata, signals, traffic, dict(scene.telemetry),
                canaries=_canaries(scene, number),
            )
        )  # fmt: skip
    return out


def side(scene: Scene, name: str = "side") -> Side:
    """Return the windows of *scene* as a side with units of one window."""
    return side_of(name, windows_of(scene), [scene.windows], 1)


def _canaries(scene: Scene, number: int) -> tuple[CanaryExhibit, ...]:
    if scene.canary_failed is None:
        return ()
    deviation = 0.2 if scene.canary_failed else 1e-6
    return (CanaryExhibit(number * MINUTE_NS, "short", deviation, 1e-3, scene.canary_failed, 1 if scene.canary_failed else None,
                          hint="weights" if scene.canary_failed else ""),)  # fmt: skip
