"""headwatch's own state, window by window: a fault of ours must never look like one of the model.

:class:`TelemetryMeter` turns cumulative counts of workers and ingest into figures of a window; :func:`telemetry_evidence` holds
a window against stated thresholds and against what was usual.  No statistics: a sensor is broken or it is not, and what is
said here goes before every other explanation.

Thinning by the budget, or by ingest under load, is no fault: rows say how many they stand for, and means stay unbiased.
A change of sampling that somebody ordered is none either, but it moves the noise of every stream, so it is reported.

Cost: a few counters for each worker, at most ``MAX_WORKERS``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from headwatch.findings import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headwatch.health import Health, WorkerHealth
    from headwatch.observed import ObservedWindow

MAX_WORKERS = 1024
SILENT_NS = 15_000_000_000
"""A worker that says nothing for so long does not report (its status comes every few seconds)."""
START_NS = 15 * 60_000_000_000
"""So long after the sidecar's start workers that an earlier life knew may load their model; then they are down."""

FIGURES = {
    "capture_up": "least share of the known workers that reported and were capturing, over the window",
    "workers": "workers that reported",
    "frames_missing_share": "frames that never arrived, of those sent",
    "rows_dropped_share": "rows that were dropped on their way to the wire, of those planned",
    "rows_refused_share": "rows of layers that failed their check, of those planned",
    "refused_layers": "most layers that one worker refused",
    "clock_skew_seconds": "worker clock minus sidecar clock, of the worker where it is largest",
    "sample_rate": "mean over workers of the share of requests that is sampled",
    "step_stride": "mean over workers of every how many steps one is sampled",
    "budget_stride": "mean over workers of the factor by which the budget thins rows",
    "detail": "mean over workers of the detail level",
    "thinned_rows": "rows that ingest left out because more arrived than it could aggregate",
    "rows": "rows that were aggregated",
    "late_rows": "of these, rows that came after their window had closed",
}
"""What each figure is.  A figure that nothing defines is left out."""

LEAST_UP = 1.0
MOST_MISSING = 0.01
MOST_DROPPED = 0.05
MOST_REFUSED = 0.01
MOST_SKEW_SECONDS = 2.0
"""The grace after which a window closes: beyond it rows miss their window."""
MOST_LATE = 0.05
_TIMES_USUAL = 3.0
"""A loss that is usual counts from so many times the usual one."""
_CHANGED = 0.01
"""Relative: a setting that differs by more has been changed."""
SETTINGS = ("sample_rate", "step_stride", "detail")
_VALUES = 16
_Number = TypeVar("_Number", int, float)


class TelemetryMeter:
    """Counts what happens between two windows.  Not safe from threads.

    Until a worker has reported nobody knows whether there is one: a sidecar is often up before its server, which is no fault of
    capture.  So ``capture_up`` is not defined before.
    """

    def __init__(self, due_ns: int | None = None) -> None:
        """Prepare; *due_ns*: so long after the first look a worker must have reported, since one is known.  None: none is."""
        self._due_ns = due_ns
        self._first_ns: int | None = None
        self._met = False
        """Whether any worker has reported."""
        self._counts: dict[str, dict[str, int]] = {}
        """By worker and life, as of the last window."""
        self._ingest: dict[str, int] | None = None
        self._latest: Health | None = None
        self._reported: set[str] = set()
        self._up: float | None = None
        self._skew = 0.0
        self._refused = 0

    def add(self, health: Health) -> None:
        """Look at the state of the pair; call it at every delivery, a window has the worst of what was seen in it."""
        self._latest = health
        self._first_ns = health.time_ns if self._first_ns is None else self._first_ns
        reporting = [worker for worker in health.workers if health.time_ns - worker.received_ns <= SILENT_NS]
        self._reported.update(_name(worker) for worker in reporting[:MAX_WORKERS])
        self._met = self._met or bool(reporting)
        up = {_name(worker) for worker in reporting if worker.status.up}
        if self._met or (self._due_ns is not None and health.time_ns - self._first_ns >= self._due_ns):
            share = len(self._reported & up) / len(self._reported) if self._reported else 0.0
            self._up = share if self._up is None else min(self._up, share)
        for worker in reporting:
            if abs(worker.clock_skew_seconds) > abs(self._skew):
                self._skew = worker.clock_skew_seconds
            self._refused = max(self._refused, len(worker.status.refused_layers))

    def window(self) -> dict[str, float]:
        """Return the figures since the last call; empty where nothing was looked at."""
        health = self._latest
        if health is None:
            return {}
        reporting = [worker for worker in health.workers if health.time_ns - worker.received_ns <= SILENT_NS]
        gone = self._since(health)
        made = {
            **({} if self._up is None else {"capture_up": self._up}),
            "workers": float(len(reporting)),
            "refused_layers": float(self._refused),
            "clock_skew_seconds": self._skew,
            **{name: float(count) for name, count in self._arrived(health).items()},
        }
        for name, part, whole in (
            ("frames_missing_share", "missing", "sent"), ("rows_dropped_share", "rows_dropped", "rows_planned"),
            ("rows_refused_share", "rows_refused", "rows_planned"),
        ):  # fmt: skip
            if gone[whole] > 0:
                made[name] = min(gone[part] / gone[whole], 1.0)
        if reporting:
            for name in ("sample_rate", "step_stride", "budget_stride", "detail"):
                made[name] = sum(float(getattr(worker.status, name)) for worker in reporting) / len(reporting)
        self._reported = {_name(worker) for worker in reporting[:MAX_WORKERS]}
        self._up, self._skew, self._refused, self._latest = None, 0.0, 0, None
        return made

    def _since(self, health: Health) -> dict[str, int]:
        """Return what the workers counted since the last window, and remember where they stand."""
        first = not self._counts
        now = {_name(worker): _counts(worker) for worker in health.workers[:MAX_WORKERS]}
        total = dict.fromkeys(("missing", "sent", "rows_planned", "rows_dropped", "rows_refused"), 0)
        for name, counts in now.items():
            before = self._counts.get(name, counts if first else {})
            for key in total:
                total[key] += max(counts[key] - before.get(key, 0), 0)
        self._counts = now
        return total

    def _arrived(self, health: Health) -> dict[str, int]:
        before = self._ingest if self._ingest is not None else {}
        names = ("rows", "late_rows", "thinned_rows")
        made = {name: max(health.ingest.get(name, 0) - before.get(name, 0), 0) for name in names}
        self._ingest = dict(health.ingest)
        return made


class TelemetryBaseline(msgspec.Struct, frozen=True):
    """What is usual of the figures: sums over windows, so that two baselines add up; plain JSON by msgspec."""

    windows: dict[str, int] = {}
    totals: dict[str, float] = {}
    settings: dict[str, dict[str, int]] = {}
    """How many windows had which value of a setting, by name; the commonest ``_VALUES``."""

    @classmethod
    def learn(cls, windows: Iterable[ObservedWindow]) -> TelemetryBaseline:
        """Return the baseline of *windows*; those that are suspect say nothing."""
        learnt = cls()
        for window in windows:
            if window.telemetry and not is_suspect(window.telemetry):
                figures = window.telemetry
                values = {name: {f"{figures[name]:.6g}": 1} for name in SETTINGS if name in figures}
                learnt = learnt.merge(cls(dict.fromkeys(figures, 1), dict(figures), values))
        return learnt

    def merge(self, other: TelemetryBaseline) -> TelemetryBaseline:
        """Return the baseline of the windows of both."""
        settings = {}
        for name in sorted(self.settings.keys() | other.settings.keys()):
            counts = _added(self.settings.get(name, {}), other.settings.get(name, {}))
            commonest = sorted(counts, key=lambda value: (-counts[value], value))[:_VALUES]
            settings[name] = {value: counts[value] for value in commonest}
        return TelemetryBaseline(_added(self.windows, other.windows), _added(self.totals, other.totals), settings)

    def usual(self, name: str) -> float | None:
        """Return the commonest value of a setting, the mean of another figure; None where there is none."""
        if self.settings.get(name):
            counts = self.settings[name]
            return float(max(counts, key=lambda value: (counts[value], value)))
        return self.totals[name] / self.windows[name] if self.windows.get(name) else None


def telemetry_evidence(
    telemetry: Mapping[str, float], baseline: TelemetryBaseline, time_ns: int, model: str = ""
) -> tuple[Evidence, ...]:
    """Return the faults of headwatch itself that a window with the figures *telemetry* shows, worst first."""
    found = []
    for name, most, note in (
        ("frames_missing_share", MOST_MISSING, "frames of summaries never arrived"),
        ("rows_dropped_share", MOST_DROPPED, "rows were dropped before the wire"),
        ("rows_refused_share", MOST_REFUSED, "rows are missing because their layers failed the self-check"),
    ):
        value, usual = telemetry.get(name, 0.0), baseline.usual(name) or 0.0
        if value >= max(most, _TIMES_USUAL * usual):
            found.append((name, usual, value, f"{value:.1%} of {note}, {usual:.1%} before"))
    if telemetry.get("capture_up", 1.0) < LEAST_UP:
        up = telemetry["capture_up"]
        found.insert(0, ("capture_up", baseline.usual("capture_up") or 1.0, up, f"capture was up on {up:.0%} of the workers"))
    refused, usual = telemetry.get("refused_layers", 0.0), baseline.usual("refused_layers") or 0.0
    if refused > usual + 0.5:
        found.append(("refused_layers", usual, refused, f"{refused:.0f} layers failed their self-check and are not captured"))
    skew = telemetry.get("clock_skew_seconds", 0.0)
    if abs(skew) >= MOST_SKEW_SECONDS:
        before = baseline.usual("clock_skew_seconds") or 0.0
        note = f"a worker's clock is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
        found.append(("clock_skew_seconds", before, skew, note))
    if (share := _late(telemetry)) >= MOST_LATE:
        found.append(("late_rows", 0.0, telemetry["late_rows"], f"{share:.0%} of the rows came after their window had closed"))
    for name in SETTINGS:
        before_setting = baseline.usual(name)
        if before_setting is not None and name in telemetry:
            value = telemetry[name]
            if abs(value - before_setting) > _CHANGED * max(abs(before_setting), abs(value)):
                note = f"{name} is {value:.4g}, it was {before_setting:.4g}"
                found.append((name, before_setting, value, note))
    return tuple(
        Evidence("telemetry", name, model, "", "", 0.0, before, after, after - before, time_ns, note=note)
        for name, before, after, note in found
    )


def is_suspect(telemetry: Mapping[str, float]) -> bool:
    """Return whether a window with these figures should teach nothing: rows of it are missing or misplaced in unknown ways."""
    return (
        telemetry.get("capture_up", 1.0) < LEAST_UP
        or telemetry.get("workers", 1.0) < 1.0
        or telemetry.get("frames_missing_share", 0.0) >= MOST_MISSING
        or telemetry.get("rows_dropped_share", 0.0) >= MOST_DROPPED
        or abs(telemetry.get("clock_skew_seconds", 0.0)) >= MOST_SKEW_SECONDS
        or _late(telemetry) >= MOST_LATE
    )


def _late(telemetry: Mapping[str, float]) -> float:
    rows = telemetry.get("rows", 0.0)
    return telemetry.get("late_rows", 0.0) / rows if rows > 0.0 else 0.0


def _name(worker: WorkerHealth) -> str:
    identity = worker.status.worker
    return f"{identity.instance}/{identity.rank}/{identity.start_ns}"


def _counts(worker: WorkerHealth) -> dict[str, int]:
    counters = worker.status.counters
    return {
        "missing": worker.frames_missing,
        "sent": worker.frames_missing + worker.frames_received,
        **{name: counters.get(name, 0) for name in ("rows_planned", "rows_dropped", "rows_refused")},
    }


def _added(one: Mapping[str, _Number], other: Mapping[str, _Number]) -> dict[str, _Number]:
    together = dict(one)
    for name, value in other.items():
        together[name] = together[name] + value if name in together else value
    return together
