"""What size of change this much data could have seen.

The labellings are data in which there is no difference.  A shift of d standard deviations is added to the second side of each,
and the share of them in which the comparison then finds it is the power; the smallest d with a power of 80 % is stated.  Adding
a shift needs no second pass: t becomes t + d·g with g the sensitivity of the stream, so the mean t² of all heads is a
quadratic in d whose coefficients were kept.

Three figures: a shift of all heads alike (by feature), of one head alone, and of one signal.  In units they are for the median
head.  Where the sides do differ, spreads are slightly overstated, and so is what is needed.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.compare.testing import standardised

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.compare.pairs import Pair
    from headwatch.compare.testing import Outcome

POWER = 0.8
_LARGEST = 64.0
_STEPS = 30


class FeaturePower(msgspec.Struct, frozen=True):
    """The smallest shifts that would have been found with 80 % probability."""

    feature: str
    all_heads: float | None
    """In standard deviations of a unit, the same in every head; None where no size would do."""
    all_heads_units: float | None
    """The same in units of the feature, for the median head."""
    one_head: float | None
    one_head_units: float | None


class SignalPower(msgspec.Struct, frozen=True):
    """The same for a signal."""

    name: str
    smallest: float | None
    smallest_units: float | None


def feature_power(pair: Pair, outcome: Outcome, alpha: float) -> list[FeaturePower]:
    """Return what shift of each feature would have been found."""
    limit, single = outcome.critical("pattern", alpha), outcome.critical("heads", alpha)
    found = []
    for feature, shift in outcome.observed.items():
        inflated = float(pair.inflations[0][feature])
        patterns = [pattern for pattern in outcome.patterns if pattern.feature == feature]

        def seen(size: float) -> float:
            reached = [
                standardised(pattern, np.maximum(pattern.mean_square + 2 * size * pattern.slope + size**2 * pattern.curve, 0)
                             / inflated)  # noqa: B023 - called in this round of the loop only
                for pattern in patterns  # noqa: B023
            ]  # fmt: skip
            return float((np.max(reached, axis=0)[1:] > limit).mean())

        scales = np.stack([test.streams.scale for test in pair.heads if test.feature == feature])
        scale = float(np.median(np.sqrt((scales**2).mean(axis=0))))
        smallest = _smallest(seen)
        sensitivity = float(np.median(shift.sensitivity[0]) / np.sqrt(inflated))
        alone = (single + NormalDist().inv_cdf(POWER)) / sensitivity if np.isfinite(single) and sensitivity > 0 else None
        found.append(FeaturePower(
            pair.first.features[feature], smallest, None if smallest is None else smallest * scale,
            alone, None if alone is None else alone * scale,
        ))  # fmt: skip
    return found


def signal_power(pair: Pair, outcome: Outcome, alpha: float) -> list[SignalPower]:
    """Return what shift of each signal, in all groups of requests alike, would have been found."""
    if "signals" not in outcome.families:
        return []
    limit = outcome.critical("signals", alpha)
    root = np.sqrt(pair.inflations[1])
    found = []
    for name in sorted({single.name for single in outcome.signals}):
        singles = [single for single in outcome.signals if single.name == name]

        def seen(size: float) -> float:
            reached = [np.abs(single.t + size * single.sensitivity) / root for single in singles]  # noqa: B023 - as above
            return float((np.max(reached, axis=0)[1:] > limit).mean())

        scale = float(np.median([test.streams.scale[0] for test in pair.signals if test.name == name]))
        smallest = _smallest(seen)
        found.append(SignalPower(name, smallest, None if smallest is None else smallest * scale))
    return found


def _smallest(seen: Callable[[float], float]) -> float | None:
    """Return the smallest size that is *seen* with the wanted probability, None where none is."""
    if seen(_LARGEST) < POWER:
        return None
    low, high = 0.0, _LARGEST
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) >= POWER else (middle, high)
    return high
