"""How large the differences are: by head and feature, by signal, by share of traffic; each with its interval.

Strata are taken together, each as much as it can tell (the information Q of :mod:`headwatch.compare.statistic`), with the
lengths of contexts held equal; ``after`` is ``before`` plus that difference.  An effect is the difference over the standard
deviation of a unit within a side.

Intervals are simultaneous: all of one family hold at once with probability 1 - alpha, counted for everything that is looked at.
That is why the ones of the largest effects may be believed though they were chosen for being large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.compare.statistic import shift_of
from headwatch.compare.testing import standardised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.compare.pairs import FigureTest, Pair
    from headwatch.compare.testing import Outcome, Single


class HeadEffect(msgspec.Struct, frozen=True):
    """One feature of one head."""

    layer: int
    head: int
    feature: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    effect: float
    """Difference in standard deviations of a unit."""
    p_value: float
    """Counted for everything that is looked at."""


class FigureEffect(msgspec.Struct, frozen=True):
    """One signal or share."""

    name: str
    group: str
    """Whose requests; ``all`` where groups are taken together."""
    before: float
    after: float
    difference: float
    low: float
    high: float
    effect: float
    p_value: float


class FeatureEffects(msgspec.Struct, frozen=True):
    """All heads of one feature: [layers][heads]; None where a head never defines it."""

    feature: str
    p_value: float
    """Of the pattern over all heads, strata together."""
    heads_named: int
    median_effect: float
    """Of the absolute effects."""
    strata: dict[str, float]
    """p-value of the pattern by stratum."""
    effect: list[list[float | None]]
    half_width: list[list[float | None]]
    """Half of each effect's interval."""


class _Feature:
    """The effects of one feature over strata."""

    def __init__(self, pair: Pair, feature: int, critical: float) -> None:
        tests = [test.streams for test in pair.heads if test.feature == feature]
        labels = np.repeat([0.0, 1.0], [pair.first.units, pair.second.units])[None]
        total, streams = 0.0, tests[0].residuals.shape[1]
        self.before, self.difference, variance, error = (np.zeros(streams) for _ in range(4))
        for test in tests:
            shift = shift_of(test, labels)
            information = float(shift.information[0])
            b = shift.score[0] / max(information, 1e-12)
            within = (test.weights @ test.residuals**2 - b * shift.score[0]) / max(test.freedom, 1)
            total += information
            self.before += information * test.means[0]
            self.difference += shift.score[0] * test.scale
            variance += information * np.maximum(within, 0.0) * test.scale**2
            error += shift.variance[0] * test.scale**2
        self.before /= total
        self.difference /= total
        self.deviation = np.sqrt(variance / total)
        half = critical * np.sqrt(pair.inflations[0][feature] * error) / total
        self.low, self.high = self.difference - half, self.difference + half
        with np.errstate(invalid="ignore", divide="ignore"):
            self.effect = np.where(self.difference == 0, 0.0, self.difference / self.deviation)
            self.half_width = half / self.deviation


def head_effects(pair: Pair, outcome: Outcome, alpha: float) -> tuple[list[FeatureEffects], list[HeadEffect]]:
    """Return the effects by feature, and every head's, the most certain first."""
    critical = outcome.critical("heads", alpha)
    features, heads = [], []
    width = pair.first.heads
    for feature, shift in outcome.observed.items():
        name = pair.first.features[feature]
        found = _Feature(pair, feature, critical)
        t = np.abs(shift.t[0]) / np.sqrt(pair.inflations[0][feature])
        p_values = outcome.adjusted("heads", t.astype(np.float64))
        known = np.isfinite(found.before) & np.isfinite(found.effect)
        features.append(
            FeatureEffects(
                name, _pattern(pair, outcome, feature), int((known & (p_values <= alpha)).sum()),
                float(np.median(np.abs(found.effect[known]))) if known.any() else 0.0,
                _pattern_by_stratum(pair, outcome, feature),
                _table(found.effect, width), _table(found.half_width, width),
            )
        )  # fmt: skip
        heads += [
            (float(t[stream]), HeadEffect(
                int(stream) // width, int(stream) % width, name, float(found.before[stream]),
                float(found.before[stream] + found.difference[stream]), float(found.difference[stream]),
                float(found.low[stream]), float(found.high[stream]), float(found.effect[stream]), float(p_values[stream]),
            ))
            for stream in np.flatnonzero(known)
        ]  # fmt: skip
    heads.sort(key=lambda item: -item[0])
    return features, [effect for _, effect in heads]


def figure_effects(
    pair: Pair, outcome: Outcome, family: str, tests: Sequence[FigureTest], singles: Sequence[Single], alpha: float
) -> list[FigureEffect]:
    """Return the effects of signals or shares, the most certain first."""
    critical = outcome.critical(family, alpha)
    inflated = pair.inflations[1 if family == "signals" else 2]
    labels = np.repeat([0.0, 1.0], [pair.first.units, pair.second.units])[None]
    effects = []
    for single in singles:
        chosen = [tests[place] for place in single.tests]
        total = before = difference = variance = error = 0.0
        for test in chosen:
            streams, shift = test.streams, shift_of(test.streams, labels)
            information, score, scale = float(shift.information[0]), float(shift.score[0, 0]), float(streams.scale[0])
            within = float(streams.weights @ streams.residuals[:, 0] ** 2) - score**2 / max(information, 1e-12)
            total += information
            before += information * float(streams.means[0, 0])
            difference += score * scale
            variance += information * max(within, 0.0) / max(streams.freedom, 1) * scale**2
            error += float(shift.variance[0, 0]) * scale**2
        if total <= 0:
            continue
        half = critical * float(np.sqrt(inflated * error)) / total
        before, difference, deviation = before / total, difference / total, float(np.sqrt(variance / total))
        group = chosen[0].group.label if len(chosen) == 1 and chosen[0].group is not None else "all"
        effects.append((abs(float(single.t[0])), FigureEffect(
            single.name, group, before, before + difference, difference, difference - half, difference + half,
            difference / deviation if deviation > 0 else float(np.sign(difference)) * float("inf") if difference else 0.0,
            float(outcome.adjusted(family, np.abs(single.t[:1]))[0]),
        )))  # fmt: skip
    effects.sort(key=lambda item: -item[0])
    return [effect for _, effect in effects]


def _pattern(pair: Pair, outcome: Outcome, feature: int) -> float:
    """Return the p-value of the pattern of *feature* over strata."""
    found = _patterns(pair, outcome, feature)
    return found.get("", min(found.values()))


def _pattern_by_stratum(pair: Pair, outcome: Outcome, feature: int) -> dict[str, float]:
    return {label: p_value for label, p_value in _patterns(pair, outcome, feature).items() if label}


def _patterns(pair: Pair, outcome: Outcome, feature: int) -> dict[str, float]:
    """Return the p-values of the patterns of *feature* by stratum; the one over strata, where there is one, under ``""``."""
    return {
        pair.heads[pattern.cell].cell.label if pattern.cell >= 0 else "":
            float(outcome.adjusted("pattern", standardised(pattern, pattern.mean_square[:1]))[0])
        for pattern in outcome.patterns if pattern.feature == feature
    }  # fmt: skip


def _table(values: NDArray[np.float64], width: int) -> list[list[float | None]]:
    plain = [round(float(value), 4) if np.isfinite(value) else None for value in values]
    return [plain[start : start + width] for start in range(0, len(plain), width)]
