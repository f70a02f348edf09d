"""Observed windows that carry something of everything."""

from __future__ import annotations

import numpy as np

from headwatch.findings import CanaryExhibit, DeployEvent, HeadFinding
from headwatch.history.codec import rounded
from headwatch.observed import ObservedDocument, ObservedRequest, ObservedWindow, Scope, SignalValue, StratumWindow
from headwatch.records import Stratum

MINUTE = 60 * 10**9
STRATUM = Stratum("m", "r", "lora", "hr", "512-1k", "decode", "de", "v3")

SCOPE = Scope("m", "lora", "hr", "de", "64-128")


def full_window(number: int = 7, *, heads: int = 4, layers: int = 3) -> ObservedWindow:
    """Return a window with every field filled."""
    random = np.random.default_rng(number)
    values = rounded(random.uniform(0, 1, (6, layers * heads)))
    values[5, 1] = np.nan
    head = HeadFinding(1, 2, "entropy", 3.5, 0.4, 0.5, 6.0, confident=True)
    document = ObservedDocument("d1", "handbook", "3", "2026-11-01T00:00:00Z", 0.4, {"reliability": "low"})
    return ObservedWindow(
        number=number, start_ns=number * MINUTE, end_ns=(number + 1) * MINUTE,
        strata={
            STRATUM: StratumWindow(values, np.full(6, 12.0), np.array([9.25]), heads),
            Stratum("m", "r", "", "chat", "<512", "prefill"): StratumWindow(
                values[::-1].copy(), np.arange(6.0), np.array([np.nan]), heads
            ),
        },
        signals={SCOPE: {"grounding_ratio": SignalValue(0.61, 8.0), "stale_mass": SignalValue(0.3, 7.5)}},
        traffic={"requests": 8.0, "route:hr": 5.0, "language:de": 8.0},
        telemetry={"capture_up": 1.0, "frames_missing_share": 0.0},
        requests=(ObservedRequest("r1", "r1-0abc", "t", 5, "m", "hr", "grounded", 0.6, (document,), ("instruction_focus",)),),
        canaries=(CanaryExhibit(9, "short", 0.7, 0.1, failed=True, earliest_layer=3, heads=(head,), hint="head"),),
        deploys=(DeployEvent(4, "release 7", "abc", "ann", 600.0),),
    )  # fmt: skip


def same(one: ObservedWindow, other: ObservedWindow) -> bool:
    """Return whether two windows are equal, arrays to the last bit."""
    plain = ("number", "start_ns", "end_ns", "signals", "traffic", "telemetry", "requests", "canaries", "deploys")
    if any(getattr(one, name) != getattr(other, name) for name in plain) or list(one.strata) != list(other.strata):
        return False
    return all(
        mine.heads == theirs.heads
        and all(
            np.array_equal(getattr(mine, name), getattr(theirs, name), equal_nan=True)
            for name in ("values", "rows", "covariates")
        )
        for mine, theirs in zip(one.strata.values(), other.strata.values(), strict=True)
    )
