"""What a page says: which parts and features, since when, from where to where, and which heads.

The evidence was gathered stream by stream; a page is read by a person.  So for each feature or signal that speaks, the
windows since its start are read back from the history, and what is shown are their means beside those of the baseline.  Heads
are ranked by evidence and effect together, since either alone names the wrong ones: evidence those that wandered before, effect
those that wander by nature.  No error is claimed for the ranking.  Signals whose means have moved are shown also where the
clock did not need them: they tell classes apart.

Cost: reads at most :data:`LOOK_BACK` windows, once a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift import naming, onset
from headwatch.drift.parts import sources
from headwatch.drift.short import SPREAD_WINDOWS
from headwatch.drift.stratum import StratumMonitor
from headwatch.findings import DriftEvent, Evidence, HeadFinding
from headwatch.observed import DRIFT_FEATURES, closed_by_count

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from headwatch.drift.learning import Windows
    from headwatch.drift.parts import Key, Part, View
    from headwatch.drift.watched import Clock, Watched
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
_LEAST = 10.0
"""Evidence that says nothing is not shown, however short the interval is."""
_RECENT = 8
"""Windows that tell which heads to date the start by."""
_CLIP = 8.0


@dataclass(frozen=True, slots=True)
class _Candidate:
    watched: Watched
    index: int
    """Of the feature or signal in the part."""
    evidence: float
    contribution: float


class Explainer:
    """Makes an event from monitors and the windows behind it."""

    def __init__(self, watched: Mapping[Key, Watched], clock: Clock, interval: float, window_seconds: float) -> None:
        """*interval* is the promised mean time between false alarms on *clock*, in windows."""
        self._watched = watched
        self._clock = clock
        self._interval = interval
        self._window_seconds = window_seconds

    def event(self, window: ObservedWindow, windows: Windows, shown: float, missing: Collection[int] = ()) -> DriftEvent:
        """Return what a page after *window* says.

        *shown* is what the clock shows; windows that are *missing* gave no evidence.
        """
        chosen = self._chosen(shown)
        first = max(self._clock.evidence_from, window.number - LOOK_BACK + 1)
        looked_at = [item for item in self._watched.values() if item.part.kind == "signal" or item.part.key in chosen]
        series = _read(windows, looked_at, first, window.number, missing)
        told = (self._evidence(candidate, series[key]) for key, candidates in chosen.items() for candidate in candidates)
        found = [evidence for evidence in told if evidence is not None]
        found.sort(key=lambda evidence: -evidence.log10_evidence)
        leading = found[0] if found else None
        since_ns = leading.since_ns if leading is not None else window.start_ns
        found += self._signals_that_moved(series, {(one.stratum, one.name) for one in found}, since_ns)
        found = found[:MOST_EVIDENCE]
        routes = {evidence.route for evidence in found if evidence.log10_evidence > 0 and evidence.route}
        starts = {int(start) for read in series.values() for start in read.starts if start >= since_ns}
        windows_since = max(len(starts), 1)
        measured = closed_by_count(window, self._window_seconds) and bool(starts)
        return DriftEvent(
            time_ns=window.end_ns, since_ns=since_ns, model=leading.model if leading is not None else "",
            route=routes.pop() if len(routes) == 1 else "", evidence=tuple(found),
            log10_evidence=float(np.log10(max(shown, 1.0))), interval_windows=self._interval,
            window_seconds=(window.end_ns - min(starts)) / 1e9 / windows_since if measured else self._window_seconds,
            windows_since=windows_since,
        )  # fmt: skip

    def _chosen(self, shown: float) -> dict[Key, list[_Candidate]]:
        """Return the features and signals that speak, by part, the parts that contribute most first."""
        candidates = []
        for watched in self._watched.values():
            evidence = self._clock.evidence(watched)
            shares = self._clock.shares(watched, evidence)
            for index, (value, share) in enumerate(zip(evidence.tolist(), shares.tolist(), strict=True)):
                if value >= max(_LEAST, _SPEAKS * self._interval) or share >= _CONTRIBUTES * shown:
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
        single = _single(candidate)
        likely = naming.ranked(_score(single, levels[-_RECENT:]), onset.STREAMS)
        spread = _of_spread(candidate, self._clock.families)
        start = onset.began((levels**2 - 1.0 if spread else levels)[:, likely])
        effect = _mean(levels[start:])
        after = _mean(np.stack([view.values[index] for view in read.views[start:]]))
        moved = _Moved(after - effect * part.streams.scale[index], after, effect)
        log10 = float(np.log10(max(candidate.evidence, 1.0)))
        order = naming.ranked(_score(single, levels[start:]), NAMED)
        heads = self._heads(part, part.names[index], moved, order, single) if part.kind == "heads" else ()
        before, now, size, note = moved.in_short(part.known[index], heads)
        if spread:
            note = f"the spread changed, to {_spread(levels[start:]):.1f} times what it was{'; ' if note else ''}{note}"
        error = part.streams.noise.error(len(levels) - start)[index]
        return Evidence(
            part.kind, part.names[index], part.model, part.route, part.label, log10, before, now, size, int(read.starts[start]),
            heads, note, float(error),
        )  # fmt: skip

    def _heads(
        self, part: Part, feature: str, moved: _Moved, order: NDArray[np.int64], single: NDArray[np.float64]
    ) -> tuple[HeadFinding, ...]:
        sure = set(naming.confident(single, 1.0 / self._interval).tolist())
        return tuple(
            HeadFinding(
                int(part.chosen[k]) // part.heads, int(part.chosen[k]) % part.heads, feature,
                float(np.log10(max(single[k], 1.0))), float(moved.before[k]), float(moved.after[k]),
                float(moved.effect[k]), k in sure,
            )
            for k in order.tolist() if not np.isnan(moved.effect[k])
        )  # fmt: skip

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
            errors = [float(part.streams.noise.error(int(count))[index]) for index, count in enumerate(counts)]
            evidence = self._clock.evidence(self._watched[key])
            for index, name in enumerate(part.names):
                if (part.label, name) not in shown and abs(effect[index]) >= _MOVED * errors[index]:
                    found.append(Evidence(
                        "signal", name, part.model, part.route, part.label, float(np.log10(max(evidence[index], 1.0))),
                        float(before[index]), float(after[index]), float(effect[index]), since_ns,
                        standard_error=errors[index],
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


def _read(
    windows: Windows, watched: list[Watched], first: int, last: int, missing: Collection[int]
) -> dict[Key, _Read]:
    """Return what the windows numbered *first* to *last* say of each part, but for those that are *missing*."""
    gathered: dict[Key, list[tuple[int, View, int]]] = {item.part.key: [] for item in watched}
    for past in windows.read(first, last):
        if past.number in missing:
            continue
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


def _score(single: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what heads are ranked by, [K]: log10 of the evidence of each, *single* [K], and of how likely its *levels* are."""
    mean = np.clip(np.nan_to_num(_mean(levels)), -_CLIP, _CLIP)
    score: NDArray[np.float64] = np.log10(np.maximum(single, 1.0)) + 0.5 * np.log10(np.e) * len(levels) * mean**2
    return score


def _single(candidate: _Candidate) -> NDArray[np.float64]:
    """Return the evidence of each head for a feature, [K], of level or spread, whichever is more."""
    monitor = candidate.watched.monitor
    streams = monitor.heads if isinstance(monitor, StratumMonitor) else monitor.streams
    mean: NDArray[np.float64] = streams.mean.mixture()[candidate.index]
    if streams.spread is None or candidate.watched.part.windows < SPREAD_WINDOWS:
        return mean
    larger: NDArray[np.float64] = np.maximum(mean, streams.spread.mixture()[candidate.index])
    return larger


def _of_spread(candidate: _Candidate, families: Collection[str]) -> bool:
    """Return whether, as *families* say, it is rather the spread that changed."""
    found = candidate.watched.monitor.evidence()
    known = {name: float(found[name][candidate.index]) for name in candidate.watched.part.families if name in families}
    leading = max(known, key=lambda name: known[name])
    return leading.endswith("spread")


def _spread(levels: NDArray[np.float64]) -> float:
    """Return the median over streams of the root mean square of *levels* [N, K]."""
    known = ~np.isnan(levels)
    squares = np.where(known, levels, 0.0) ** 2
    return float(np.sqrt(np.median((squares.sum(axis=0) / np.maximum(known.sum(axis=0), 1))[known.any(axis=0)])))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over windows of *values* [N, K]; NaN where there is none."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0), np.float64)
