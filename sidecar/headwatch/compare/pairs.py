"""Both sides joined where they may be compared, and what is left out and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.compare.batches import inflation, shares
from headwatch.compare.streams import prepared
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from headwatch.compare.batches import Dependence
    from headwatch.compare.side import Cell, Group, Series, Side
    from headwatch.compare.streams import Streams

_HALF = 0.5
MOST_CELLS = 64
"""Strata compared; of more, those with the most rows."""
COUNTED = (
    "documents_absent", "documents_unresolved", "document_count", "document_tokens", "document_wholeness",
    "tokens_per_document", "source_presence.", "source_share.", "stale_age_days", "version_lag",
)  # fmt: skip
"""Signals that length does not bend: read from the request, which length is made of, or relative to the length of a source."""


@dataclass(frozen=True, slots=True)
class HeadTest:
    """The heads of one feature in one cell."""

    cell: Cell
    feature: int
    streams: Streams


@dataclass(frozen=True, slots=True)
class FigureTest:
    """One figure: a signal of a group of requests, or a share of traffic (then without a group)."""

    group: Group | None
    name: str
    streams: Streams


@dataclass(frozen=True, slots=True)
class Pair:
    """What is compared."""

    first: Side
    second: Side
    heads: tuple[HeadTest, ...]
    signals: tuple[FigureTest, ...]
    traffic: tuple[FigureTest, ...]
    dependence: Dependence
    only_first: tuple[Cell, ...]
    only_second: tuple[Cell, ...]
    too_thin: tuple[Cell, ...]

    @property
    def inflations(self) -> tuple[NDArray[np.float64], float, float]:
        """Return by what dependence raises the variance: of heads by feature, of signals, of traffic.

        A feature has its own correlation, or the mean of all where that is larger: heads of a feature move together, so its own
        is an estimate from little more than one series.
        """
        usual = float(np.mean(self.dependence.features))
        features = np.array([inflation(max(correlation, usual)) for correlation in self.dependence.features])
        return features, inflation(self.dependence.signals), inflation(self.dependence.traffic)


def pair_of(first: Side, second: Side, dependence: Dependence) -> Pair:
    """Return *first* and *second* joined; without a stratum in common their heads are not compared, signals and traffic are.

    Raises:
        CommandError: Their heads are not the same ones, or they have nothing in common.
    """
    _check_shapes(first, second)
    labels = np.repeat([0.0, 1.0], [first.units, second.units])
    common = sorted(first.cells.keys() & second.cells.keys(), key=lambda cell: -_rows(first, second, cell))
    tests = []
    thin = list(common[MOST_CELLS:])
    for cell in common[:MOST_CELLS]:
        found = list(_head_tests(first, second, cell, labels))
        tests += found
        if not found:
            thin.append(cell)
    signals, traffic = tuple(_signal_tests(first, second, labels)), tuple(_traffic_tests(first, second, labels))
    if not (tests or signals or traffic):
        raise CommandError(_nothing_in_common(first, second, thin))
    return Pair(
        first, second, tuple(tests), signals, traffic, dependence,
        tuple(sorted(first.cells.keys() - second.cells.keys())), tuple(sorted(second.cells.keys() - first.cells.keys())),
        tuple(sorted(thin)),
    )  # fmt: skip


def _check_shapes(first: Side, second: Side) -> None:
    if first.unit != second.unit:
        raise CommandError(f"{first.name} consists of {first.unit}, {second.name} of {second.unit}: compare like with like")
    one, other = (
        f"{side.streams // side.heads} layers of {side.heads} heads ({len(side.features)} features) in {side.name}"
        for side in (first, second)
    )
    if (first.streams, first.heads, first.features) != (second.streams, second.heads, second.features):
        raise CommandError(f"the models have different shapes: {one}, {other}")


def _nothing_in_common(first: Side, second: Side, thin: list[Cell]) -> str:
    if thin:
        return (f"{first.name} and {second.name} have strata in common, but none with 3 units on each side "
                f"({thin[0].label}, …): compare longer ranges")  # fmt: skip
    examples = ", ".join(f"{side.name} has {min(side.cells).label}" for side in (first, second))
    return f"{first.name} and {second.name} have no stratum in common, so nothing may be compared: {examples}"


def _rows(first: Side, second: Side, cell: Cell) -> float:
    return float(min(first.cells[cell].rows.sum(), second.cells[cell].rows.sum()))


def _head_tests(first: Side, second: Side, cell: Cell, labels: NDArray[np.float64]) -> Iterator[HeadTest]:
    sides = first.cells[cell], second.cells[cell]
    known = min(side.covariates.shape[1] for side in sides)  # recordings of another version may know fewer
    causes = np.concatenate([side.covariates[:, :known] for side in sides])
    for feature in range(len(first.features)):
        values = np.concatenate([side.values[:, feature] for side in sides])
        rows = np.concatenate([side.rows[:, feature] for side in sides])
        streams = prepared(values, rows, causes, labels)
        if streams is not None:
            yield HeadTest(cell, feature, streams)


def _signal_tests(first: Side, second: Side, labels: NDArray[np.float64]) -> Iterator[FigureTest]:
    none = np.zeros((len(labels), 0))
    for group, name in sorted(first.signals.keys() & second.signals.keys()):
        pair = first.signals[group, name], second.signals[group, name]
        counted = name.startswith(COUNTED)
        causes = none if counted else np.concatenate([_length(side, group) for side in (first, second)])
        streams = _figure(pair, causes, labels)
        if streams is not None:
            yield FigureTest(group, name, streams)


def _traffic_tests(first: Side, second: Side, labels: NDArray[np.float64]) -> Iterator[FigureTest]:
    found = shares(first), shares(second)
    for name in sorted(found[0].keys() | found[1].keys()):
        pair = [_filled(side, share, name) for side, share in zip((first, second), found, strict=True)]
        values = np.concatenate([share for share, _ in pair])[:, None]
        requests = np.concatenate([count for _, count in pair])
        streams = prepared(values, requests, np.zeros((len(labels), 0)), labels)
        if streams is not None and streams.varying.any():
            yield FigureTest(None, name, streams)


def _filled(
    side: Side, share: Mapping[str, NDArray[np.float64]], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share *name* of each unit, 0 where the side never had it, and its requests."""
    requests = side.traffic.get("requests", np.zeros(side.units))
    return share.get(name, np.where(requests > 0, 0.0, np.nan)), requests


def _figure(pair: tuple[Series, Series], causes: NDArray[np.float64], labels: NDArray[np.float64]) -> Streams | None:
    values = np.concatenate([series.values for series in pair])[:, None]
    requests = np.concatenate([series.requests for series in pair])
    streams = prepared(values, requests, causes, labels)
    return streams if streams is not None and streams.varying.any() else None


def _length(side: Side, group: Group) -> NDArray[np.float64]:
    """Return the causes of the group's generated rows, [U, C]: the mean over its strata, each as much as it has rows.

    A unit in which none of the group's requests generated has the mean of the side, where half of the units have one.
    """
    heads = [
        found for cell, found in side.cells.items()
        if cell.phase == "decode" and (cell.adapter, cell.route) == (group.adapter, group.route)
        and group.language in {"", cell.language}
    ]  # fmt: skip
    if not heads:
        return np.full((side.units, 0 if not side.cells else next(iter(side.cells.values())).covariates.shape[1]), np.nan)
    rows = np.stack([found.rows.max(axis=1) for found in heads])[:, :, None]  # [S, U, 1]
    causes = np.stack([found.covariates for found in heads])  # [S, U, C]
    weight = np.where(np.isnan(causes), 0.0, rows)
    total = weight.sum(axis=0)
    sums = (np.nan_to_num(causes) * weight).sum(axis=0)
    found = np.asarray(np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0), np.float64)
    known = np.isfinite(found)
    if known.size and known.mean(axis=0).min() >= _HALF:
        found = np.where(known, found, np.where(known, found, 0.0).sum(axis=0) / known.sum(axis=0))
    return found
