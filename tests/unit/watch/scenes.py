"""Windows of a small model with two routes, as the observer hands them over, healthy and otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headwatch.config import Config, DriftConfig, WindowConfig
from headwatch.findings import CanaryExhibit
from headwatch.observed import (
    DRIFT_FEATURES,
    ObservedDocument,
    ObservedRequest,
    ObservedWindow,
    Scope,
    SignalValue,
    StratumWindow,
)
from headwatch.records import Stratum
from headwatch.watch.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECOND = 10**9
WINDOW_NS = 60 * SECOND
START = 1_700_000_000 // 60
LAYERS, HEADS = 3, 4
MODEL = "small"
BASELINE = 60
LAG = 5
CONFIG = Config(
    window=WindowConfig(seconds=60.0),
    drift=DriftConfig(
        interval_windows=500.0, min_baseline_windows=BASELINE, learning_lag_windows=LAG, min_stratum_rows=1.0, resolve_windows=3
    ),
)
HEALTHY = {
    "documents_absent": 0.0, "documents_unresolved": 0.0, "grounding_ratio": 0.35, "grounding_ratio_retrieval": 0.6,
    "document_mass": 0.5, "document_count": 3.0, "tokens_per_document": 80.0, "instruction_focus": 0.5,
    "capture_by_document": 0.6,
}  # fmt: skip
TELEMETRY = {
    "capture_up": 1.0, "workers": 1.0, "rows": 400.0, "frames_missing_share": 0.0, "rows_dropped_share": 0.0,
    "rows_refused_share": 0.0, "refused_layers": 0.0, "clock_skew_seconds": 0.0, "late_rows": 0.0, "sample_rate": 1.0,
    "step_stride": 1.0, "detail": 1.0,
}  # fmt: skip


def window(number: int, *, route: str = "hr", heads_move: float = 0.0, **signals: float) -> ObservedWindow:
    """Return window *number* (from 0): healthy, but for *signals*; *heads_move* in standard deviations of all heads."""
    random = np.random.default_rng(number)
    level = np.linspace(0.2, 0.8, LAYERS * HEADS)
    shape = (len(DRIFT_FEATURES), LAYERS * HEADS)
    values = level + 0.01 * (random.standard_normal(shape) + heads_move)
    stratum = Stratum(MODEL, "r1", "", route, "512-1k", "decode")
    figures = {
        name: SignalValue(float(value + (0.02 * random.standard_normal() if name not in signals and value > 0 else 0.0)), 10.0)
        for name, value in {**HEALTHY, **signals}.items()
    }
    start = (START + number) * WINDOW_NS
    request = ObservedRequest(
        f"chatcmpl-{number}", f"chatcmpl-{number}-0", "", start + SECOND, MODEL, route, "measured", 0.35,
        (ObservedDocument("hr-12", "wiki", "2", "", 0.6), ObservedDocument("hr-7", "wiki", "1", "", 0.4)),
    )
    return ObservedWindow(
        number=START + number, start_ns=start, end_ns=start + WINDOW_NS,
        strata={stratum: StratumWindow(values, np.full(len(DRIFT_FEATURES), 40.0), np.array([9.5]), HEADS)},
        signals={Scope(MODEL, "", route): figures},
        traffic={"requests": 10.0, "prompt_tokens": 7000.0, "prompt_log2": 94.5, f"route:{route}": 10.0, "band:512-1k": 10.0,
                 f"template:{route}:0a1b2c3d": 10.0},
        telemetry=dict(TELEMETRY), requests=(request,),
    )  # fmt: skip


def with_canary(seen: ObservedWindow, *, failed: bool = False, hint: str = "weights") -> ObservedWindow:
    """Return *seen* with one canary run in it."""
    run = CanaryExhibit(
        seen.end_ns - SECOND, "short", 0.02 if failed else 0.0, 1e-6, failed, 2 if failed else None, hint=hint if failed else ""
    )
    return replace(seen, canaries=(run,))


def opened(
    folder: Path, config: Config = CONFIG, ask: Callable[[], bool] = lambda: False, pin: Callable[[], None] = lambda: None
) -> Watch:
    """Return a watch on *folder* whose clock stands still: what it does follows from its windows."""
    return Watch(config, folder, lambda: (START + 10_000) * WINDOW_NS, ask, pin)


def taught(folder: Path, config: Config = CONFIG, *, canaries: bool = True) -> tuple[Watch, int]:
    """Return a watch that has learned what is healthy, and the number of the next window."""
    watch = opened(folder, config)
    for number in range(BASELINE + 2 * LAG + 5):
        watch.take(with_canary(window(number)) if canaries else window(number))
    assert watch.engine.version > 0, "a baseline is in force"
    return watch, BASELINE + 2 * LAG + 5
