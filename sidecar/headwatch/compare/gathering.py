"""Windows become units: means of heads and signals, counts of traffic, tallies of canaries.

A mean over windows weighs each by its rows (or requests), so a unit is what one longer window would have been.

Cost: 8 bytes a unit, stratum, feature and head while windows are read, 4 afterwards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headwatch.compare.side import CanaryTally, Cell, Group, Heads, LeftOut, Series, Side
from headwatch.errors import CommandError
from headwatch.observed import DRIFT_FEATURES
from headwatch.records import Selection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from headwatch.findings import CanaryExhibit
    from headwatch.observed import ObservedWindow, StratumWindow

_EVERYTHING = Selection()


def side_of(
    name: str, windows: Iterable[ObservedWindow], runs: Sequence[int], length: int, selection: Selection = _EVERYTHING
) -> Side:
    """Return *windows* as a side: the first ``runs[0]`` follow each other, then the next ``runs[1]`` and so on.

    Of the strata those of *selection* are taken.  What a window does not tell apart by them is left out where it saw others.

    Raises:
        CommandError: They are of several models, or of different shapes.
    """
    gathering = _Gathering(name, selection)
    source = iter(windows)
    for run, size in enumerate(runs):
        for start in range(0, size, length):
            unit = gathering.begin(run)
            for window in _taken(source, min(length, size - start)):
                gathering.add(unit, window)
    return gathering.side(length)


@dataclass(slots=True)
class _Sums:
    """Of one cell and unit."""

    mean: NDArray[np.float32]  # [F, K]
    weight: NDArray[np.float32]  # [F, K]
    rows: NDArray[np.float64]  # [F]
    covariates: NDArray[np.float64]  # [C]

    def add(self, other: StratumWindow) -> None:
        """Take the mean with *other*, each head as much as it has rows."""
        weight = np.where(np.isnan(other.values), 0.0, other.rows[:, None])
        total = self.weight + weight
        share = np.divide(weight, total, out=np.zeros_like(total, dtype=np.float64), where=total > 0)
        self.mean = (self.mean + share * (np.nan_to_num(other.values) - self.mean)).astype(np.float32)
        part = other.rows.max() / max(self.rows.max() + other.rows.max(), 1e-9)
        self.covariates = self.covariates + part * (other.covariates - self.covariates)
        self.weight = total.astype(np.float32)
        self.rows = self.rows + other.rows


@dataclass(slots=True)
class _Gathering:
    name: str
    selection: Selection
    runs: list[int] = field(default_factory=list)
    cells: dict[Cell, dict[int, _Sums]] = field(default_factory=dict)
    signals: dict[tuple[Group, str], dict[int, tuple[float, float]]] = field(default_factory=dict)
    traffic: dict[str, dict[int, float]] = field(default_factory=dict)
    telemetry: dict[str, list[float]] = field(default_factory=dict)
    canaries: dict[str, list[CanaryExhibit]] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    revisions: set[str] = field(default_factory=set)
    shape: tuple[int, int, int, int] | None = None  # features, streams, heads, covariates
    times: list[int] = field(default_factory=list)
    members: int = 0
    shared: int = 0
    without_signals: int = 0

    def begin(self, run: int) -> int:
        self.runs.append(run)
        return len(self.runs) - 1

    def add(self, unit: int, window: ObservedWindow) -> None:
        self.members += 1
        self.times += [window.start_ns, window.end_ns]
        self._add_heads(unit, window)
        others = [stratum for stratum in window.strata if not self.selection.takes(stratum)]
        self._add_signals(unit, window, {(stratum.model, stratum.adapter) for stratum in others})
        for name, figure in window.telemetry.items():
            self.telemetry.setdefault(name, []).append(figure)
        if others:
            self.shared += len(others) < len(window.strata)
            return
        for name, count in window.traffic.items():
            counts = self.traffic.setdefault(name, {})
            counts[unit] = counts.get(unit, 0.0) + count
        for exhibit in window.canaries:
            self.canaries.setdefault(exhibit.prompt, []).append(exhibit)

    def _add_heads(self, unit: int, window: ObservedWindow) -> None:
        for stratum, seen in window.strata.items():
            if not self.selection.takes(stratum):
                continue
            self.models.add(stratum.model)
            self.revisions.add(stratum.revision)
            self._check(seen)
            cell = Cell(self._held(stratum.adapter), stratum.route, stratum.context_band, stratum.phase, stratum.language,
                        stratum.template)  # fmt: skip
            units = self.cells.setdefault(cell, {})
            if unit not in units:
                nothing = np.zeros(seen.values.shape, np.float32)
                units[unit] = _Sums(nothing, nothing, np.zeros_like(seen.rows), np.array(seen.covariates))
            units[unit].add(seen)

    def _held(self, adapter: str) -> str:
        """Return *adapter* as what is held equal: nothing where it is chosen, and so compared."""
        return adapter if self.selection.adapter is None else ""

    def _add_signals(self, unit: int, window: ObservedWindow, others: set[tuple[str, str]]) -> None:
        """Add what a scope says that has no requests of *others*, by model and adapter: scopes do not know revisions."""
        mixed = False
        for scope, values in window.signals.items():
            if scope.model != (self.selection.model or scope.model) or self.selection.adapter not in {None, scope.adapter}:
                continue
            if (scope.model, scope.adapter) in others:
                mixed = True
                continue
            group = Group(self._held(scope.adapter), scope.route, scope.language)
            for name, value in values.items():
                kept = self.signals.setdefault((group, name), {})
                mean, requests = kept.get(unit, (0.0, 0.0))
                total = requests + value.requests
                if total > 0:
                    kept[unit] = (mean + (value.mean - mean) * value.requests / total, total)
        self.without_signals += mixed

    def side(self, length: int) -> Side:
        if len(self.models) > 1:
            raise CommandError(f"{self.name} holds several models ({', '.join(sorted(self.models))}); choose one, as in "
                               f"[model={min(self.models)}]")  # fmt: skip
        if self.shape is None:
            asked = ", ".join(f"{name} {value!r}" for name, value in self.selection.given().items())
            raise CommandError(f"{self.name}: no window in it holds a stratum{f' of {asked}' if asked else ''}")
        features, streams, heads, causes = self.shape
        units = len(self.runs)
        cells = {}
        for cell, found in self.cells.items():
            values = np.full((units, features, streams), np.nan, np.float32)
            rows, covariates = np.zeros((units, features)), np.full((units, causes), np.nan)
            for unit, sums in found.items():
                values[unit] = np.where(sums.weight > 0, sums.mean, np.nan)
                rows[unit], covariates[unit] = sums.rows, sums.covariates
            cells[cell] = Heads(values, rows, covariates)
            found.clear()
        signals = {}
        for name, kept in self.signals.items():
            means, requests = np.full(units, np.nan), np.zeros(units)
            for unit, (mean, count) in kept.items():
                means[unit], requests[unit] = mean, count
            signals[name] = Series(means, requests)
        traffic = {name: np.array([counts.get(unit, 0.0) for unit in range(units)]) for name, counts in self.traffic.items()}
        return Side(
            self.name, "windows", tuple(sorted(self.models)), tuple(sorted(self.revisions)), DRIFT_FEATURES[:features], heads,
            length, np.array(self.runs, np.int64), self.members, min(self.times), max(self.times), cells, signals, traffic,
            {name: _usual(name, figures) for name, figures in self.telemetry.items()},
            tuple(_tally(prompt, runs) for prompt, runs in sorted(self.canaries.items())), self.selection.adapter,
            LeftOut(self.shared, self.without_signals),
        )  # fmt: skip

    def _check(self, seen: StratumWindow) -> None:
        shape = (*seen.values.shape, seen.heads, len(seen.covariates))
        if self.shape is None:
            self.shape = shape
        elif shape != self.shape:
            raise CommandError(f"{self.name}: a stratum has {shape[:3]} features, streams and heads a layer, an earlier one "
                               f"{self.shape[:3]}; choose a range of one model")  # fmt: skip


def _tally(prompt: str, runs: Sequence[CanaryExhibit]) -> CanaryTally:
    failed = [run for run in runs if run.failed]
    hints = Counter(run.hint for run in failed if run.hint)
    return CanaryTally(
        prompt, len(runs), len(failed), max(run.deviation for run in runs), max(run.threshold for run in runs),
        hints.most_common(1)[0][0] if hints else "", failed[-1].earliest_layer if failed else None, runs[-1].failed,
    )  # fmt: skip


def _taken(source: Iterator[ObservedWindow], count: int) -> Iterator[ObservedWindow]:
    for _ in range(count):
        window = next(source, None)
        if window is None:
            return
        yield window


def _usual(name: str, figures: list[float]) -> float:
    """Return what stands for *figures* of windows: their mean; of a clock's skew the median, as one window is an accident."""
    return float(np.median(figures) if name == "clock_skew_seconds" else np.mean(figures))
