"""A baseline from windows: what is watched by itself, what is pooled, and what was normal for each.

Two passes over the windows, because which strata are rare is known only after the first.  Windows under suspicion are missing
ones: they are not looked at, and time passes over them.  Everything is bounded: strata that are told apart, parts that are
watched by themselves (the rest is pooled), and the memory of a pass, for which parts are learned group by group.

Cost: a pass reads each window from the history (a millisecond or less); the fits take seconds for a model of some hundred
heads, minutes for 5,120.  The largest array is one part: windows x features x heads x 4 bytes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from headwatch.drift.parts import MEMBER_ROWS, Key, Part, Source, sources, view_of
from headwatch.drift.scope import learn_scope
from headwatch.drift.short import charged
from headwatch.drift.signals import SIGNALS
from headwatch.drift.stratum import learn_stratum
from headwatch.drift.telemetry import is_suspect
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from headwatch.config import DriftConfig
    from headwatch.drift.scope import ScopeBaseline
    from headwatch.drift.stratum import StratumBaseline
    from headwatch.observed import ObservedWindow

SCOPE_REQUESTS = 1.0
"""A scope with fewer requests in the median window is pooled."""
FEWEST_WINDOWS = 20
"""Nothing is learned from fewer."""
_SEEN_SHARE = 0.25
"""Of a part's windows in which a stream must be defined."""
_MOST_KEYS = 256
_MOST_PARTS = 64
_UNKNOWN_FLOOR = 0.01
_GROUP_BYTES = 128 * 1024 * 1024


class Windows(Protocol):
    """Windows that can be read more than once, in order: a history."""

    def read(self, first: int, last: int) -> Iterator[ObservedWindow]:
        """Yield the windows numbered *first* to *last*, both included."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """Which windows a baseline learns from."""

    windows: Windows
    first: int
    last: int
    suspect: Collection[int] = ()
    """Numbers of windows in between that count as missing; those with a fault of telemetry do in any case."""

    def read(self) -> Iterator[ObservedWindow]:
        """Yield them in order."""
        for window in self.windows.read(self.first, self.last):
            if window.number not in self.suspect and not is_suspect(window.telemetry):
                yield window


@dataclass(slots=True)
class _Tally:
    """What the first pass counts of one stratum or scope."""

    source: Source
    windows: int = 0
    rows: list[float] = field(default_factory=list)
    sums: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)
    """By name: weighted sum and weight, [W] each."""

    def add(self, source: Source) -> None:
        self.windows += 1
        self.rows.append(float(source.rows.max(initial=0.0)))
        if source.values.shape[1] != self.source.values.shape[1]:  # another model under the same name: the later one counts
            self.sums.clear()
        self.source = source
        for name, values, rows in zip(source.names, source.values, source.rows, strict=True):
            defined = np.where(np.isnan(values), 0.0, rows)
            total, weight = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (total + defined * np.nan_to_num(values), weight + defined)

    def mean(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """Return the mean of *names* over the windows, [F, W]; NaN where it was never defined."""
        nothing = (np.zeros(self.source.values.shape[1]), np.zeros(self.source.values.shape[1]))
        sums = [self.sums.get(name, nothing) for name in names]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([np.where(weight > 0, total / weight, np.nan) for total, weight in sums])


@dataclass(frozen=True, slots=True)
class _Plan:
    """One part that is to be learned."""

    key: Key
    source: Source
    names: tuple[str, ...]
    members: dict[str, NDArray[np.float64]]
    centre: NDArray[np.float64]


def learn(span: Span, config: DriftConfig, window_seconds: float, only: Collection[Key] | None = None) -> list[Part]:
    """Return the parts that the windows of *span* are enough for, *only* those keys where they are given.

    *window_seconds* is 0 where windows close by count: then nobody can tell the time of the day from a window's number.
    """
    tallies, count = _tally(span, only)
    if count < FEWEST_WINDOWS:
        return []
    plans = list(_plans(tallies, count, config))
    parts = []
    for group in _groups(plans, span.last - span.first + 1):
        parts += [part for part in _learn_group(span, group, window_seconds) if part is not None]
    return parts


def _tally(span: Span, only: Collection[Key] | None) -> tuple[dict[Key, _Tally], int]:
    tallies: dict[Key, _Tally] = {}
    count = 0
    for window in span.read():
        found = sources(window, DRIFT_FEATURES)
        count += bool(found)
        for key, source in found.items():
            if only is not None and key not in only:
                continue
            tally = tallies.get(key)
            if tally is None:
                if len(tallies) >= _MOST_KEYS:
                    continue
                tally = tallies[key] = _Tally(source)
            tally.add(source)
    return tallies, count


def _plans(tallies: Mapping[Key, _Tally], count: int, config: DriftConfig) -> Iterator[_Plan]:
    """Yield what is watched by itself, then the pools."""
    least = {"heads": config.min_stratum_rows, "signal": SCOPE_REQUESTS}
    pools: dict[Key, list[tuple[str, _Tally]]] = {}
    often = sorted(tallies.items(), key=lambda item: (-sum(item[1].rows), item[0]))
    alone = 0
    for key, tally in often:
        median = float(np.median([*tally.rows, *[0.0] * (count - tally.windows)]))
        if median >= least[key.kind] and tally.windows >= FEWEST_WINDOWS and alone < _MOST_PARTS:
            alone += 1
            yield _Plan(key, tally.source, _names(key, [tally]), {}, np.zeros((0, 0)))
        elif sum(tally.rows) >= MEMBER_ROWS:
            pools.setdefault(Key(key.kind, tally.source.pool), []).append((key.label, tally))
    for key, members in pools.items():
        width = members[0][1].source.values.shape[1]
        alike = [(label, tally) for label, tally in members if tally.source.values.shape[1] == width][:_MOST_PARTS]
        names = _names(key, [tally for _, tally in alike])
        means = {label: tally.mean(names) for label, tally in alike}
        rows = np.array([sum(tally.rows) for _, tally in alike])
        known = np.stack([np.nan_to_num(mean) for mean in means.values()])
        weight = np.stack([rows[index] * ~np.isnan(mean) for index, mean in enumerate(means.values())])
        centre = (known * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1.0)
        yield _Plan(key, members[0][1].source._replace(route=""), names, means, centre)


def _names(key: Key, tallies: Iterable[_Tally]) -> tuple[str, ...]:
    if key.kind == "heads":
        return DRIFT_FEATURES
    return tuple(sorted({name for tally in tallies for name in tally.sums}))


def _groups(plans: list[_Plan], windows: int) -> Iterator[list[_Plan]]:
    """Yield *plans* in groups whose values fit into memory together."""
    group: list[_Plan] = []
    size = 0
    for plan in plans:
        own = windows * len(plan.names) * plan.source.values.shape[1] * 4
        if group and size + own > _GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(plan)
        size += own
    if group:
        yield group


def _learn_group(span: Span, group: list[_Plan], window_seconds: float) -> Iterator[Part | None]:
    count = span.last - span.first + 1
    shapes = [(count, len(plan.names), plan.source.values.shape[1]) for plan in group]
    values = [np.full(shape, np.nan, np.float32) for shape in shapes]  # exact for heads: their means have 16 bits
    rows = [np.zeros(shape[:2]) for shape in shapes]
    covariates = [np.full((count, len(plan.source.covariates)), np.nan) for plan in group]
    for window in span.read():
        found = sources(window, DRIFT_FEATURES)
        at = window.number - span.first
        for index, plan in enumerate(group):
            view = view_of(found, plan.key, plan.names, plan.source.values.shape[1], plan.members, plan.centre)
            if view is not None:
                values[index][at], rows[index][at] = view.values, view.rows
                if covariates[index].shape[1] == len(view.covariates):
                    covariates[index][at] = view.covariates
    numbers = np.arange(span.first, span.last + 1)
    for index, plan in enumerate(group):
        with warnings.catch_warnings():  # NumPy warns of streams that no window defines
            warnings.simplefilter("ignore", RuntimeWarning)
            part = _learn_part(plan, numbers, values[index], rows[index], covariates[index], window_seconds)
        yield part
        values[index] = np.zeros((0, 0, 0), np.float32)


def _learn_part(
    plan: _Plan, numbers: NDArray[np.int64], values: NDArray[np.float32], rows: NDArray[np.float64],
    covariates: NDArray[np.float64], window_seconds: float,
) -> Part | None:
    present: NDArray[np.bool_] = np.asarray((~np.isnan(values)).any(axis=(1, 2)))
    needed = max(FEWEST_WINDOWS / 2, _SEEN_SHARE * present.sum())
    defined: NDArray[np.bool_] = np.asarray((~np.isnan(values)).sum(axis=0) >= needed)  # [F, W]
    chosen = np.flatnonzero(defined.any(axis=0))
    features = np.flatnonzero(2 * defined[:, chosen].sum(axis=1) >= max(len(chosen), 1))
    count = int(present.sum())
    if count < FEWEST_WINDOWS or not len(features):
        return None
    first = int(np.flatnonzero(present)[0])  # what came later than the baseline's first window is learned from there
    numbers, rows = numbers[first:], rows[first:, features]
    known = defined[features][:, chosen]
    if len(features) < len(plan.names) or len(chosen) < values.shape[2]:
        values = values[:, features][:, :, chosen]
    values = values[first:]
    values[:, ~known] = np.nan
    names = tuple(plan.names[index] for index in features)
    source = plan.source
    caused = _causes(covariates[first:], present[first:]) if plan.key.kind == "heads" and not plan.members else None
    baseline: StratumBaseline | ScopeBaseline
    if plan.key.kind == "heads":
        _, layer = np.unique(chosen // source.heads, return_inverse=True)
        baseline = learn_stratum(names, layer.astype(np.int64), numbers, window_seconds, values, rows, caused)
        heads = source.heads
    else:
        floor = np.array([[_floor_of(name)] for name in names])
        counted = np.array([[_is_counted(name)] for name in names])
        baseline = learn_scope(names, numbers, window_seconds, values.astype(np.float64), rows, floor, counted)
        heads = 0
    return Part(
        kind=plan.key.kind, label=plan.key.label, model=source.model, route=source.route, heads=heads, names=names,
        width=source.values.shape[1], chosen=chosen, known=known,
        centre=plan.centre[features] if plan.members else plan.centre,
        members={label: mean[features] for label, mean in plan.members.items()},
        covariates=0 if caused is None else caused.shape[1], windows=count, baseline=charged(baseline, count),
    )  # fmt: skip


def _floor_of(signal: str) -> float:
    """Return the smallest standard deviation that is believed of *signal*, which may be one that is defined no longer."""
    known = SIGNALS.get(signal.partition(".")[0])
    return known.floor if known is not None else _UNKNOWN_FLOOR


def _is_counted(signal: str) -> bool:
    known = SIGNALS.get(signal.partition(".")[0])
    return known is not None and known.counted


def _causes(covariates: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Return *covariates* [N, C] where they are known in most windows and vary, or None."""
    seen = covariates[present]
    if not seen.size or 2 * (~np.isnan(seen)).all(axis=1).sum() < len(seen):
        return None
    return covariates if (np.nanstd(seen, axis=0) > 0).all() else None
