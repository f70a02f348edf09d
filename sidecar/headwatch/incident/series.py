"""How the figures behind an incident ran, window by window: read from history for its report.

History keeps what detection looked at, so a picture shows what was judged and nothing else.  Reading it costs a few hundred
windows at most; where history is gone, or another model has other heads by now, there is simply no picture.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.errors import HistoryError
from headwatch.history.file import History
from headwatch.incident.figure_text import place
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from headwatch.findings import Evidence, Incident
    from headwatch.observed import ObservedWindow, StratumWindow
    from headwatch.pictures.figures import Matrix

WINDOWS_BEFORE = 60
WINDOWS_AFTER = 60
MAX_LINES = 6
_LEAST_WINDOWS = 3
"""A standard deviation of fewer windows is none."""


@dataclass(frozen=True, slots=True)
class Line:
    """One figure over time."""

    name: str
    points: tuple[tuple[int, float | None], ...]
    """End of the window, and the value; None where it is undefined or the window is missing."""


@dataclass(frozen=True, slots=True)
class HeadMap:
    """Effect of every head in one stratum: the mean since the change minus the mean before, in sds of the windows before."""

    place: str
    feature: str
    effects: Matrix
    windows_before: int
    windows_after: int


@dataclass(frozen=True, slots=True)
class Series:
    """What history tells of an incident."""

    lines: tuple[Line, ...] = ()
    heads: tuple[HeadMap, ...] = ()


def read_series(path: Path, incident: Incident) -> Series:
    """Return the series of *incident* from the history at *path*; empty where there is none, or none of that time."""
    event = incident.event
    length_ns = int(event.window_seconds * 1e9)
    try:
        with History.open_readonly(path) as history:
            numbers = history.between(
                event.since_ns - WINDOWS_BEFORE * length_ns, event.time_ns + WINDOWS_AFTER * length_ns
            )[: 2 * (WINDOWS_BEFORE + WINDOWS_AFTER)]
            windows = [window for number in numbers for window in history.read(number, number)]
    except HistoryError:
        return Series()
    return series_of(incident, windows)


def series_of(incident: Incident, windows: list[ObservedWindow]) -> Series:
    """Return the series of the evidence of *incident*, most first, in *windows*."""
    evidence = [one for one in incident.event.evidence if one.kind in {"heads", "signal", "telemetry"}][:MAX_LINES]
    lines = (
        Line(f"{one.name}{f', {where}' if (where := place(one)) else ''}",
             tuple(sorted(((window.end_ns, _value(one, window)) for window in windows), key=lambda point: point[0])))
        for one in evidence
    )  # fmt: skip
    maps = [_head_map(one, incident.event.since_ns, windows) for one in evidence if one.kind == "heads"]
    return Series(
        tuple(line for line in lines if any(value is not None for _, value in line.points)),
        tuple(one for one in maps if one is not None)[:2],
    )


def _value(evidence: Evidence, window: ObservedWindow) -> float | None:
    if evidence.kind == "telemetry":
        return window.telemetry.get(evidence.name)
    if evidence.kind == "signal":
        return _signal(evidence, window)
    held = _stratum(evidence, window)
    if held is None or evidence.name not in DRIFT_FEATURES:
        return None
    values = held.values[DRIFT_FEATURES.index(evidence.name)]
    chosen = [number for head in evidence.heads if (number := head.layer * held.heads + head.head) < len(values)]
    return _mean(values[chosen] if chosen else values)


def _signal(evidence: Evidence, window: ObservedWindow) -> float | None:
    """Return the mean over the scope of the evidence, or over all of its model and route, by their requests."""
    total = weight = 0.0
    for scope, signals in window.signals.items():
        held = signals.get(evidence.name)
        if held is not None and (
            scope.label == evidence.stratum if evidence.stratum
            else scope.model == evidence.model and evidence.route in {"", scope.route}
        ):  # fmt: skip
            total, weight = total + held.mean * held.requests, weight + held.requests
    return total / weight if weight > 0 else None


def _stratum(evidence: Evidence, window: ObservedWindow) -> StratumWindow | None:
    return next((held for stratum, held in window.strata.items() if stratum.label == evidence.stratum), None)


def _mean(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def _head_map(evidence: Evidence, since_ns: int, windows: list[ObservedWindow]) -> HeadMap | None:
    if evidence.name not in DRIFT_FEATURES:
        return None
    feature = DRIFT_FEATURES.index(evidence.name)
    sides: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    heads = 0
    for window in windows:
        held = _stratum(evidence, window)
        if held is not None:
            heads = held.heads
            sides[window.start_ns >= since_ns].append(held.values[feature])
    if len(sides[0]) < _LEAST_WINDOWS or not sides[1] or len({len(row) for side in sides for row in side}) != 1:
        return None
    before, after = (np.stack(side) for side in sides)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a head that no row defines is NaN, and shown as undefined
        spread = np.nanstd(before, axis=0, ddof=1)
        effects = (np.nanmean(after, axis=0) - np.nanmean(before, axis=0)) / np.where(spread > 0, spread, np.nan)
    rows = effects.reshape(-1, heads)
    return HeadMap(
        place(evidence), evidence.name, [[float(x) if np.isfinite(x) else None for x in row] for row in rows], len(before),
        len(after),
    )  # fmt: skip
