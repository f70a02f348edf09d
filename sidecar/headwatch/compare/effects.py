"""How large the differences are: by head and feature, by signal, by share of traffic; each with its interval.

Strata are taken together, each as much as it can tell (the information Q of :mod:`headwatch.compare.statistic`), with the
lengths of contexts held equal: a difference is common to the strata in their standard deviations, and shown in the unit of the
figure by the mean of these.  ``after`` is ``before`` plus it.  An effect is it over the standard deviation of a unit within a
side.

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
    from headwatch.compare.statistic import Shift
    from headwatch.compare.streams import Streams
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
    alone: float
    """p-value of this figure by itself: enough to lean on once something differs, too little for a claim."""


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


class _Measured:
    """The effects of K streams, over the strata or groups in which they were tested."""

    def __init__(self, tests: Sequence[Streams], whole: Shift, labels: NDArray[np.float64], half_t: float) -> None:
        """*whole* is the observed shift of all *tests* together, *half_t* half of an interval in standard errors."""
        total = max(float(whole.information[0]), 1e-12)
        before, spread, within = (np.zeros(len(tests[0].scale)) for _ in range(3))
        for test in tests:
            shift = shift_of(test, labels)
            information = float(shift.information[0])
            explained = shift.score[0] ** 2 / max(information, 1e-12)
            left = (test.weights @ test.residuals**2 - explained) / max(test.freedom, 1)
            before += information * test.means[0]
            spread += information * test.scale**2
            within += information * np.maximum(left, 0.0) * test.scale**2
        unit = np.sqrt(spread / total)
        deviation = np.sqrt(within / total)
        half = half_t * np.sqrt(whole.variance[0]) / total * unit
        self.before = before / total
        self.difference = whole.score[0] / total * unit
        self.low, self.high = self.difference - half, self.difference + half
        with np.errstate(invalid="ignore", divide="ignore"):
            self.effect = np.where(self.difference == 0, 0.0, self.difference / deviation)
            self.half_width = np.where(half == 0, 0.0, half / deviation)
        self.known = np.isfinite(self.before) & (whole.variance[0] > 0)


def head_effects(pair: Pair, outcome: Outcome, alpha: float) -> tuple[list[FeatureEffects], list[HeadEffect]]:
    """Return the effects by feature, and every head's, the most certain first."""
    critical, width = outcome.critical("heads", alpha), pair.first.heads
    features: list[FeatureEffects] = []
    heads: list[tuple[float, HeadEffect]] = []
    for feature, shift in outcome.observed.items():
        name, root = pair.first.features[feature], float(np.sqrt(pair.inflations[0][feature]))
        tests = [test.streams for test in pair.heads if test.feature == feature]
        found = _Measured(tests, shift, _observed_labels(pair), critical * root)
        t = np.abs(shift.t[0]).astype(np.float64) / root
        p_values = outcome.adjusted("heads", t)
        patterns = _patterns(pair, outcome, feature)
        features.append(
            FeatureEffects(
                name, patterns.pop("", min(patterns.values())), int((found.known & (p_values <= alpha)).sum()),
                float(np.median(np.abs(found.effect[found.known]))) if found.known.any() else 0.0, patterns,
                _table(found.effect, found.known, width), _table(found.half_width, found.known, width),
            )
        )  # fmt: skip
        heads += [
            (float(t[stream]), HeadEffect(
                int(stream) // width, int(stream) % width, name, float(found.before[stream]),
                float(found.before[stream] + found.difference[stream]), float(found.difference[stream]),
                float(found.low[stream]), float(found.high[stream]), float(found.effect[stream]), float(p_values[stream]),
            ))
            for stream in np.flatnonzero(found.known)
        ]  # fmt: skip
    heads.sort(key=lambda item: -item[0])
    return features, [effect for _, effect in heads]


def figure_effects(
    pair: Pair, outcome: Outcome, family: str, tests: Sequence[FigureTest], singles: Sequence[Single], alpha: float
) -> list[FigureEffect]:
    """Return the effects of signals or shares, the most certain first."""
    critical = outcome.critical(family, alpha)
    root = float(np.sqrt(pair.inflations[1 if family == "signals" else 2]))
    effects = []
    for single in singles:
        chosen = [tests[place] for place in single.tests]
        found = _Measured([test.streams for test in chosen], single.observed, _observed_labels(pair), critical * root)
        before, difference = float(found.before[0]), float(found.difference[0])
        group = chosen[0].group.label if len(chosen) == 1 and chosen[0].group is not None else "all"
        effects.append((abs(float(single.t[0])), FigureEffect(
            single.name, group, before, before + difference, difference, float(found.low[0]), float(found.high[0]),
            float(found.effect[0]), float(outcome.adjusted(family, np.abs(single.t[:1]))[0]),
            float((np.abs(single.t) >= np.abs(single.t[0])).mean()),
        )))  # fmt: skip
    effects.sort(key=lambda item: -item[0])
    return [effect for _, effect in effects]


def _observed_labels(pair: Pair) -> NDArray[np.float64]:
    return np.repeat([0.0, 1.0], [pair.first.units, pair.second.units])[None]


def _patterns(pair: Pair, outcome: Outcome, feature: int) -> dict[str, float]:
    """Return the p-values of the patterns of *feature* by stratum; the one over strata, where there is one, under ``""``."""
    return {
        pair.heads[pattern.cell].cell.label if pattern.cell >= 0 else "":
            float(outcome.adjusted("pattern", standardised(pattern, pattern.mean_square[:1]))[0])
        for pattern in outcome.patterns if pattern.feature == feature
    }  # fmt: skip


def _table(values: NDArray[np.float64], known: NDArray[np.bool_], width: int) -> list[list[float | None]]:
    plain = [round(float(value), 4) if one and np.isfinite(value) else None
             for value, one in zip(values, known, strict=True)]  # fmt: skip
    return [plain[start : start + width] for start in range(0, len(plain), width)]
