"""What is watched as one: a stratum's heads, the signals of a scope, or rare ones of either pooled.

The rule of pooling: a stratum whose median of rows over the windows of the baseline is below ``drift.min_stratum_rows`` joins
the others of its model, revision, adapter and phase, and a scope with less than one request in the median window those of its
model and adapter.  A pool must not move because its mixture does, so what is pooled is how far each member lies from its own
mean in the baseline, weighted by rows; a member with fewer than :data:`MEMBER_ROWS` rows in the whole baseline has no mean to
speak of and is left out.

A head that the baseline hardly saw (fewer than a quarter of the windows) is not watched: there is nothing to hold it against.

Cost: one pass over the heads of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from headwatch.drift import cycle
from headwatch.drift.scope import ScopeBaseline, ScopeMonitor
from headwatch.drift.short import SPREAD_WINDOWS
from headwatch.drift.stratum import StratumBaseline, StratumMonitor
from headwatch.history.codec import rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from headwatch.drift.stream import StreamBaseline
    from headwatch.observed import ObservedWindow, SignalValue
    from headwatch.records import Stratum

Kind = Literal["heads", "signal"]
Monitor = StratumMonitor | ScopeMonitor
POOLED = "pooled"
MEMBER_ROWS = 30.0


class Key(NamedTuple):
    """Which heads or signals: its kind and the label of its stratum or scope."""

    kind: Kind
    label: str

    @property
    def text(self) -> str:
        """Return one string, which :meth:`of` reads."""
        return f"{self.kind}:{self.label}"

    @classmethod
    def of(cls, text: str) -> Key:
        """Return the key whose :attr:`text` it is."""
        kind, _, label = text.partition(":")
        return cls("heads" if kind == "heads" else "signal", label)


class View(NamedTuple):
    """What one window says of a part.  F names, K streams."""

    values: NDArray[np.float64]  # [F, K]
    rows: NDArray[np.float64]  # [F]
    covariates: NDArray[np.float64]  # [C]


class Source(NamedTuple):
    """What one window says of a stratum or scope, before it is chosen from.  Rows of a name that is not defined are 0."""

    model: str
    adapter: str
    route: str
    pool: str
    """Label of the pool that it joins where it is rare."""
    names: tuple[str, ...]
    values: NDArray[np.float64]  # [F, K]
    rows: NDArray[np.float64]  # [F]
    covariates: NDArray[np.float64]
    heads: int


def sources(window: ObservedWindow, features: tuple[str, ...]) -> dict[Key, Source]:
    """Return everything in *window* that may be watched; values of heads are rounded as the history keeps them."""
    found = {
        Key("heads", stratum.label): Source(
            stratum.model, stratum.adapter, stratum.route, pool_of(stratum), features, rounded(seen.values), seen.rows,
            seen.covariates, seen.heads,
        )
        for stratum, seen in window.strata.items()
    }  # fmt: skip
    for scope, signals in window.signals.items():
        names, values, rows = _signals(signals)
        found[Key("signal", scope.label)] = Source(
            scope.model, scope.adapter, scope.route, f"{scope.model}|{scope.adapter}|{POOLED}", names, values, rows,
            np.zeros(0), 0,
        )  # fmt: skip
    return found


def pool_of(stratum: Stratum) -> str:
    """Return the label of the pool that *stratum* joins where it is rare."""
    return f"{stratum.model}|{stratum.revision}|{stratum.adapter}|{POOLED}|{stratum.phase}"


def _signals(signals: Mapping[str, SignalValue]) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
    names = tuple(sorted(signals))
    values = np.array([[signals[name].mean] for name in names]).reshape(len(names), 1)
    return names, values, np.array([signals[name].requests for name in names])


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a baseline: where its values come from, and what was learned of them."""

    kind: Kind
    label: str
    model: str
    route: str
    heads: int
    """Heads in one layer; 0 for signals."""
    names: tuple[str, ...]
    """Features or signals, F of them."""
    width: int
    """Streams of a name in a window, W: layers x heads, or 1."""
    chosen: NDArray[np.int64]  # [K] which of them are watched
    known: NDArray[np.bool_]  # [F, K] whether the baseline saw them often enough, by feature
    centre: NDArray[np.float64]  # [F, W] mean of a pool's members; zero for what is no pool
    members: dict[str, NDArray[np.float64]]
    """Of a pool: by label of stratum or scope its mean in the baseline, [F, W].  Empty for what is no pool."""
    covariates: int
    """How many covariates of a window count."""
    windows: int
    """Windows that it was learned from."""
    baseline: StratumBaseline | ScopeBaseline

    @property
    def key(self) -> Key:
        """Return which part it is."""
        return Key(self.kind, self.label)

    @property
    def streams(self) -> StreamBaseline:
        """Return what was learned of the single heads or signals."""
        return self.baseline.heads if isinstance(self.baseline, StratumBaseline) else self.baseline.streams

    @property
    def families(self) -> tuple[str, ...]:
        """Return the families that the baseline is long enough for."""
        known = self.baseline.families
        return known if self.windows >= SPREAD_WINDOWS else tuple(name for name in known if not name.endswith("spread"))

    def monitor(self) -> Monitor:
        """Return a monitor without any evidence."""
        return StratumMonitor(self.baseline) if isinstance(self.baseline, StratumBaseline) else ScopeMonitor(self.baseline)

    def concerns(self) -> tuple[Key, ...]:
        """Return the strata or scopes that it watches."""
        return tuple(Key(self.kind, label) for label in self.members) or (self.key,)

    def view(self, found: Mapping[Key, Source]) -> View | None:
        """Return what a window with *found* in it says of this part; None where it says nothing."""
        view = view_of(found, self.key, self.names, self.width, self.members, self.centre)
        if view is None:
            return None
        return View(np.where(self.known, view.values[:, self.chosen], np.nan), view.rows, view.covariates[: self.covariates])

    def levels(self, numbers: NDArray[np.int64], views: list[View]) -> NDArray[np.float64]:
        """Return how far *views* of windows *numbers* lie from what is expected, in standard deviations, [N, F, K]."""
        seconds = numbers.astype(np.float64) * self.baseline.window_seconds
        causes = cycle.design(seconds, self.baseline.periods)
        if self.covariates:
            causes = np.concatenate([causes, np.stack([view.covariates for view in views])], axis=1)
        expected = self.streams.mean + self.streams.regression.expected(causes)
        return np.asarray((np.stack([view.values for view in views]) - expected) / self.streams.scale, np.float64)


def view_of(
    found: Mapping[Key, Source], key: Key, names: tuple[str, ...], width: int,
    members: Mapping[str, NDArray[np.float64]], centre: NDArray[np.float64],
) -> View | None:
    """Return *names* of the stratum, scope or pool *key* in *found*, *width* streams each; None where it is not there."""
    if not members:
        source = found.get(key)
        return None if source is None or source.values.shape[1] != width else View(*_picked(source, names), source.covariates)
    total, weight, rows = np.zeros_like(centre), np.zeros_like(centre), np.zeros(len(names))
    for member, mean in members.items():
        source = found.get(Key(key.kind, member))
        if source is None or source.values.shape[1] != width:
            continue
        values, own = _picked(source, names)
        defined = ~np.isnan(values) & ~np.isnan(mean)
        counted = np.where(defined, own[:, None], 0.0)
        total += counted * np.where(defined, values - mean, 0.0)
        weight += counted
        rows += own
    if not weight.any():
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return View(np.where(weight > 0, centre + total / weight, np.nan), rows, np.zeros(0))


def _picked(source: Source, names: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if names == source.names:
        return source.values, source.rows
    place = {name: index for index, name in enumerate(source.names)}
    values = np.full((len(names), source.values.shape[1]), np.nan)
    rows = np.zeros(len(names))
    for index, name in enumerate(names):
        at = place.get(name)
        if at is not None:
            values[index], rows[index] = source.values[at], source.rows[at]
    return values, rows
