"""What a page says: which parts and features, since when, from where to where, and which heads.

The evidence was gathered stream by stream; a page is read by a person.  So for each feature or signal that speaks, the
windows since its start are read back from the history, and what is shown are their means beside those of the baseline.  Heads
are ranked by evidence, or by effect where no single head has any to speak of (many heads that moved a little together); no
error is claimed for the ranking.  Signals whose means have moved are shown also where the clock did not need them: they tell
classes apart.

Cost: reads at most :data:`LOOK_BACK` windows, once a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift import naming, onset
from headwatch.drift.clock import feature_evidence
from headwatch.drift.parts import sources
from headwatch.drift.stratum import StratumMonitor
from headwatch.findings import DriftEvent, Evidence, HeadFinding
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from headwatch.drift.learning import Windows
    from headwatch.drift.parts import Key, Kind, Monitor, Part, View
    from headwatch.observed import ObservedWindow

LOOK_BACK = 256
NAMED = 16
MOST_EVIDENCE = 32
_MOST_HEADS = 12
"""Of the evidence, of features of heads."""
_SPEAKS = 0.05
"""Of the interval: what a feature's own evidence must reach to be shown."""
_CONTRIBUTES = 0.01
"""Or of the clock."""
_MOVED = 3.0
"""Standard errors of its mean since the start by which a signal must have moved to be shown."""
_SINGLE = 10.0
"""Evidence of a single head below which heads are ranked by effect."""
_STARTS_TOGETHER = 8
"""Windows: signals are looked at from the earliest start that is so much earlier than the leading one's at most."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One part, its monitor, and its weight on the clock."""

    part: Part
    monitor: Monitor
    weight: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    watched: Watched
    index: int
    """Of the feature or signal in the part."""
    evidence: float
    contribution: float


def evidence_of(watched: Watched, families: Mapping[Kind, Mapping[str, float]]) -> NDArray[np.float64]:
    """Return the evidence of each feature or signal of a part, [F]; zero where all its families have no weight."""
    found, weights = watched.monitor.evidence(), families[watched.part.kind]
    if not sum(weights[name] for name in found):
        return np.zeros(len(watched.part.names))
    return feature_evidence(found, weights)


class Explainer:
    """Makes an event from monitors and the windows behind it."""

    def __init__(
        self, watched: Mapping[Key, Watched], families: Mapping[Kind, Mapping[str, float]], interval: float,
        window_seconds: float,
    ) -> None:
        """*interval* is the promised mean time between false alarms, in windows."""
        self._watched = watched
        self._families = families
        self._interval = interval
        self._window_seconds = window_seconds

    def event(self, window: ObservedWindow, windows: Windows, first: int, clock: float) -> DriftEvent:
        """Return what a page after *window* says; *first* is the earliest window that the evidence can come from."""
        chosen = self._chosen(clock)
        first = max(first, window.number - LOOK_BACK + 1)
        looked_at = [item for item in self._watched.values() if item.part.kind == "signal" or item.part.key in chosen]
        series = _read(windows, looked_at, first, window.number)
        told = (self._evidence(candidate, series[key]) for key, candidates in chosen.items() for candidate in candidates)
        found = [evidence for evidence in told if evidence is not None]
        found.sort(key=lambda evidence: -evidence.log10_evidence)
        leading = found[0] if found else None
        since_ns = leading.since_ns if leading is not None else window.start_ns
        found += self._signals_that_moved(series, {(one.stratum, one.name) for one in found}, since_ns)
        found = found[:MOST_EVIDENCE]
        routes = {evidence.route for evidence in found if evidence.log10_evidence > 0 and evidence.route}
        starts = {int(start) for read in series.values() for start in read.starts if start >= since_ns}
        return DriftEvent(
            time_ns=window.end_ns, since_ns=since_ns, model=leading.model if leading is not None else "",
            route=routes.pop() if len(routes) == 1 else "", evidence=tuple(found),
            log10_evidence=float(np.log10(max(clock, 1.0))), interval_windows=self._interval,
            window_seconds=self._window_seconds, windows_since=max(len(starts), 1),
        )  # fmt: skip

    def _chosen(self, clock: float) -> dict[Key, list[_Candidate]]:
        """Return the features and signals that speak, by part, the parts that contribute most first."""
        candidates = []
        for watched in self._watched.values():
            evidence = evidence_of(watched, self._families)
            for index, value in enumerate(evidence.tolist()):
                share = watched.weight * value / len(evidence)
                if value >= max(_SINGLE, _SPEAKS * self._interval) or share >= _CONTRIBUTES * clock:
                    candidates.append(_Candidate(watched, index, value, share))
        candidates.sort(key=lambda candidate: -candidate.contribution)
        heads = [item for item in candidates if item.watched.part.kind == "heads"][:_MOST_HEADS]
        signals = [item for item in candidates if item.watched.part.kind == "signal"]
        chosen: dict[Key, list[_Candidate]] = {}
        for candidate in sorted(heads + signals[: MOST_EVIDENCE - len(heads)], key=lambda item: -item.contribution):
            chosen.setdefault(candidate.watched.part.key, []).append(candidate)
        return chosen

    def _evidence(self, candidate: _Candidate, read: _Read) -> Evidence | None:
        part, index = candidate.watched.part, candidate.index
        if not read.views:
            return None
        levels = part.levels(read.numbers, read.views)[:, index]  # [N, K]
        order = self._ranked(candidate, levels)
        start = onset.began(_spread_too(candidate, levels)[:, order[: onset.STREAMS]])
        effect = _mean(levels[start:])
        after = _mean(np.stack([view.values[index] for view in read.views[start:]]))
        moved = _Moved(after - effect * part.streams.scale[index], after, effect)
        log10 = float(np.log10(max(candidate.evidence, 1.0)))
        heads = self._heads(candidate, moved, order) if part.kind == "heads" else ()
        before, now, size, note = moved.in_short(part.known[index], heads)
        return Evidence(
            part.kind, part.names[index], part.model, part.route, part.label, log10, before, now, size, int(read.starts[start]),
            heads, note,
        )  # fmt: skip

    def _heads(self, candidate: _Candidate, moved: _Moved, order: NDArray[np.int64]) -> tuple[HeadFinding, ...]:
        part, single = candidate.watched.part, _single(candidate)
        sure = set(naming.confident(single, 1.0 / self._interval).tolist())
        if single.max(initial=0.0) < _SINGLE:
            order = np.argsort(-np.nan_to_num(np.abs(moved.effect)), kind="stable")
        return tuple(
            HeadFinding(
                int(part.chosen[k]) // part.heads, int(part.chosen[k]) % part.heads, part.names[candidate.index],
                float(np.log10(max(single[k], 1.0))), float(moved.before[k]), float(moved.after[k]),
                float(moved.effect[k]), k in sure,
            )
            for k in order[:NAMED].tolist() if not np.isnan(moved.effect[k])
        )  # fmt: skip

    def _ranked(self, candidate: _Candidate, levels: NDArray[np.float64]) -> NDArray[np.int64]:
        single = _single(candidate)
        if single.max(initial=0.0) >= _SINGLE:
            return naming.ranked(single, len(single))
        recent = np.abs(_mean(levels[-_STARTS_TOGETHER:]))
        return np.argsort(-np.nan_to_num(recent), kind="stable")

    def _signals_that_moved(
        self, series: Mapping[Key, _Read], shown: set[tuple[str, str]], since_ns: int
    ) -> list[Evidence]:
        found = []
        for key, read in series.items():
            part = self._watched[key].part
            recent = read.starts >= since_ns
            if part.kind != "signal" or not recent.any():
                continue
            levels = part.levels(read.numbers, read.views)[recent, :, 0]  # [N, F]
            effect, after = _mean(levels), _mean(np.stack([view.values[:, 0] for view in read.views])[recent])
            before = after - effect * part.streams.scale[:, 0]
            counts = (~np.isnan(levels)).sum(axis=0)
            evidence = evidence_of(self._watched[key], self._families)
            for index, name in enumerate(part.names):
                if (part.label, name) not in shown and abs(effect[index]) * np.sqrt(counts[index]) >= _MOVED:
                    found.append(Evidence(
                        "signal", name, part.model, part.route, part.label, float(np.log10(max(evidence[index], 1.0))),
                        float(before[index]), float(after[index]), float(effect[index]), since_ns,
                    ))  # fmt: skip
        return sorted(found, key=lambda evidence: -abs(evidence.effect))


@dataclass(frozen=True, slots=True)
class _Read:
    """The windows that say something of a part: numbers, views, starts in ns."""

    numbers: NDArray[np.int64]
    views: list[View]
    starts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Moved:
    """From where to where each stream moved, [K] each; NaN where it was not seen."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    effect: NDArray[np.float64]

    def in_short(self, known: NDArray[np.bool_], heads: tuple[HeadFinding, ...]) -> tuple[float, float, float, str]:
        """Return before, after and effect of all together, and a note: of a signal its own, of heads those that are named."""
        if not heads:
            return *(float(np.nan_to_num(values[0])) for values in (self.before, self.after, self.effect)), ""  # type: ignore[return-value]
        before, after = (float(np.mean([getattr(head, name) for head in heads])) for name in ("before", "after"))
        size = float(np.mean([abs(head.effect) for head in heads]))
        moved = int((np.abs(np.nan_to_num(self.effect)) >= 1.0).sum())
        note = f"{moved} of {int(known.sum())} heads moved by a standard deviation or more"
        return before, after, size if after >= before else -size, note


def _read(windows: Windows, watched: list[Watched], first: int, last: int) -> dict[Key, _Read]:
    """Return what the windows numbered *first* to *last* say of each part."""
    gathered: dict[Key, list[tuple[int, View, int]]] = {item.part.key: [] for item in watched}
    for past in windows.read(first, last):
        found = sources(past, DRIFT_FEATURES)
        for item in watched:
            view = item.part.view(found)
            if view is not None:
                gathered[item.part.key].append((past.number, view, past.start_ns))
    return {
        key: _Read(
            np.array([number for number, _, _ in kept], np.int64), [view for _, view, _ in kept],
            np.array([start for _, _, start in kept], np.int64),
        )
        for key, kept in gathered.items()
    }  # fmt: skip


def _single(candidate: _Candidate) -> NDArray[np.float64]:
    """Return the evidence of each head for a feature, [K], of level or spread, whichever is more."""
    monitor = candidate.watched.monitor
    streams = monitor.heads if isinstance(monitor, StratumMonitor) else monitor.streams
    mean: NDArray[np.float64] = streams.mean.mixture()[candidate.index]
    return mean if streams.spread is None else np.maximum(mean, streams.spread.mixture()[candidate.index])


def _spread_too(candidate: _Candidate, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return *levels*, or how far their squares lie from 1 where it is the spread that changed."""
    found = candidate.watched.monitor.evidence()
    level = max((found[name][candidate.index] for name in found if not _of_spread(name)), default=0.0)
    spread = max((found[name][candidate.index] for name in found if _of_spread(name)), default=0.0)
    squares: NDArray[np.float64] = (levels**2 - 1.0) / np.sqrt(2.0)
    return squares if spread > level and candidate.watched.part.kind == "signal" else levels


def _of_spread(family: str) -> bool:
    return family.endswith("spread")


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over windows of *values* [N, K]; NaN where there is none."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0), np.float64)
