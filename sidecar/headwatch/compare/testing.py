"""What chance alone does: the same statistics under every labelling of the units, and how often they are as large.

Four families are tested, each by one statistic whose null distribution is its values under all labellings:

=========  ===================================================================================================
``heads``    the largest |t| of a head and feature, strata taken together: a change in few heads
``pattern``  the mean t² over all heads, by stratum and feature and over strata: a small change in many heads
``signals``  the largest |t| of a retrieval signal, by group of requests and over groups
``traffic``  the largest |t| of a share of routes, languages, lengths or templates
=========  ===================================================================================================

The whole comparison is one test: its statistic is the smallest p-value of the families, and its own p-value how often a
labelling has a smaller one (min-P; Westfall and Young 1993).  So the level holds over everything that is looked at, however
heads, features, strata and signals depend on each other, because they are exchanged together.  A head or a signal is named
where its own statistic would have been enough (single-step max-T): the chance to name any wrongly is below the level too.

Cost: three products [labellings, units] x [units, heads] a stratum and feature, in pieces of bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.compare.statistic import Shift, mean_spread, shift_of, spread_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.compare.pairs import FigureTest, HeadTest, Pair

FAMILIES = ("heads", "pattern", "signals", "traffic")
_PIECE_BYTES = 64 * 1024 * 1024
_SLACK = 1e-6
"""Relative; statistics that are equal but for rounding count as equal."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """The mean t² over the heads of a feature, under P labellings, and how it grows when all heads move alike."""

    cell: int
    """Place of the test in ``Pair.heads``; -1: over strata."""
    feature: int
    mean_square: NDArray[np.float64]  # [P]
    slope: NDArray[np.float64]  # [P] mean of t · sensitivity
    curve: NDArray[np.float64]  # [P] mean of sensitivity²


@dataclass(frozen=True, slots=True)
class Single:
    """One figure under P labellings."""

    name: str
    tests: tuple[int, ...]
    """Places in the pair's signals or traffic: one, or all of a name together."""
    t: NDArray[np.float64]  # [P]
    sensitivity: NDArray[np.float64]  # [P]
    observed: Shift
    """The observed one, tests together."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the labellings say; the first of P is the observed one, its statistics freed of what dependence adds."""

    families: dict[str, NDArray[np.float64]]  # each [P]
    p_values: dict[str, float]
    """Of the families that could be tested, each counted for all."""
    p_value: float
    """Of the whole comparison."""
    smallest: NDArray[np.float64]  # [P] the smallest p-value of each labelling
    observed: dict[int, Shift]
    """By feature: the observed shift of each head, strata taken together."""
    patterns: tuple[Pattern, ...]
    signals: tuple[Single, ...]
    traffic: tuple[Single, ...]

    def adjusted(self, family: str, statistic: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the p-value of each *statistic* of *family*, counted for everything that was looked at."""
        ordered = np.sort(self.families[family])
        alone = 1.0 - np.searchsorted(ordered, statistic * (1.0 - _SLACK), side="left") / len(ordered)
        alone = np.maximum(alone, 1.0 / len(ordered))
        smallest = np.sort(self.smallest)
        return np.asarray(np.searchsorted(smallest, alone + _SLACK / len(ordered), side="right") / len(smallest), np.float64)

    def critical(self, family: str, level: float) -> float:
        """Return what a statistic of *family* must exceed for the whole comparison to differ at *level*."""
        if family not in self.families:
            return float("inf")
        count = len(self.smallest)
        values, times = np.unique(self.smallest, return_counts=True)
        allowed = np.cumsum(times) <= level * count
        if not allowed.any():
            return float("inf")
        reached = round(float(values[allowed][-1]) * count)
        return float(np.sort(self.families[family])[count - reached - 1])


def tested(pair: Pair, labels: NDArray[np.float64]) -> Outcome:
    """Return what *labels* [P, U] say about *pair*; the first is the observed one."""
    inflations = pair.inflations
    sparse, observed, patterns = _heads(pair, labels, inflations[0])
    signals = _figures(pair.signals, labels, inflations[1], pooled=True)
    traffic = _figures(pair.traffic, labels, inflations[2], pooled=False)
    families = {"heads": sparse, "pattern": _standing_out(patterns)} if patterns else {}
    for name, singles in (("signals", signals), ("traffic", traffic)):
        if singles:
            families[name] = np.max([np.abs(single.t) for single in singles], axis=0)
    alone = {name: _p_values(statistic) for name, statistic in families.items()}
    smallest = np.min(list(alone.values()), axis=0)
    count = len(labels)
    adjusted = {name: float((smallest <= p[0] + _SLACK / count).sum() / count) for name, p in alone.items()}
    return Outcome(
        families, adjusted, float((smallest <= smallest[0] + _SLACK / count).sum() / count), smallest, observed,
        tuple(patterns), tuple(signals), tuple(traffic),
    )  # fmt: skip


def _heads(
    pair: Pair, labels: NDArray[np.float64], inflations: NDArray[np.float64]
) -> tuple[NDArray[np.float64], dict[int, Shift], list[Pattern]]:
    count = len(labels)
    sparse = np.zeros(count)
    observed: dict[int, Shift] = {}
    patterns: list[Pattern] = []
    for feature in sorted({test.feature for test in pair.heads}):
        tests = [(place, test) for place, test in enumerate(pair.heads) if test.feature == feature]
        places = [place for place, _ in tests] + ([-1] if len(tests) > 1 else [])
        found = {place: np.zeros((3, count)) for place in places}
        piece = max(_PIECE_BYTES // (tests[0][1].streams.residuals.shape[1] * 4 * 8), 1)
        for start in range(0, count, piece):
            part = slice(start, min(start + piece, count))
            whole = _one_piece(tests, labels[part], part, found)
            t = np.abs(whole.t).max(axis=1)
            if start == 0:
                observed[feature] = whole.first
                t[0] /= np.sqrt(inflations[feature])
            sparse[part] = np.maximum(sparse[part], t)
        for place, (mean_square, slope, curve) in found.items():
            mean_square[0] /= inflations[feature]
            patterns.append(Pattern(place, feature, mean_square, slope, curve))
    return sparse, observed, patterns


def _one_piece(
    tests: Sequence[tuple[int, HeadTest]], labels: NDArray[np.float64], part: slice, found: dict[int, NDArray[np.float64]]
) -> Shift:
    """Return the shift of *tests* taken together; note the pattern of each in *found*."""
    whole: Shift | None = None
    for place, test in tests:
        shift = shift_of(test.streams, labels)
        found[place][:, part] = _moments(shift)
        whole = shift if whole is None else whole.plus(shift)
    if whole is None:
        raise ValueError("no tests of a feature")
    if -1 in found:
        found[-1][:, part] = _moments(whole)
    return whole


def _moments(shift: Shift) -> NDArray[np.float64]:
    t, sensitivity = shift.t, shift.sensitivity
    return np.stack([(t * t).mean(axis=1), (t * sensitivity).mean(axis=1), (sensitivity * sensitivity).mean(axis=1)])


def _figures(
    tests: Sequence[FigureTest], labels: NDArray[np.float64], inflated: float, *, pooled: bool
) -> list[Single]:
    singles: list[Single] = []
    shifts: dict[str, list[tuple[int, Shift]]] = {}
    if not tests:
        return singles
    spread = mean_spread([spread_of(test.streams, labels) for test in tests])
    for place, test in enumerate(tests):
        shift = shift_of(test.streams, labels, spread)
        singles.append(_single(test.name, (place,), shift, inflated))
        shifts.setdefault(test.name, []).append((place, shift))
    for name, found in shifts.items():
        if pooled and len(found) > 1:
            whole = found[0][1]
            for _, shift in found[1:]:
                whole = whole.plus(shift)
            singles.append(_single(name, tuple(place for place, _ in found), whole, inflated))
    return singles


def _single(name: str, places: tuple[int, ...], shift: Shift, inflated: float) -> Single:
    t = shift.t[:, 0].astype(np.float64)
    t[0] /= np.sqrt(inflated)
    return Single(name, places, t, shift.sensitivity[:, 0].astype(np.float64), shift.first)


def standardised(pattern: Pattern, mean_square: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return *mean_square* on a scale on which the patterns of all strata and features are alike under the null.

    The cube root of a weighted sum of squares is nearly normal, however the heads depend on each other (Wilson and Hilferty
    1931); its mean and spread are those of the labellings.
    """
    root = np.cbrt(pattern.mean_square)
    spread = root.std()
    return np.asarray((np.cbrt(mean_square) - root.mean()) / (spread if spread > 0 else 1.0), np.float64)


def _standing_out(patterns: Sequence[Pattern]) -> NDArray[np.float64]:
    return np.asarray(np.max([standardised(pattern, pattern.mean_square) for pattern in patterns], axis=0), np.float64)


def _p_values(statistic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each labelling the share of labellings whose statistic is as large."""
    ordered = np.sort(statistic)
    return 1.0 - np.searchsorted(ordered, statistic - _SLACK * np.abs(statistic), side="left") / len(ordered)
