"""A comparison from its two sources to the verdict.

At level ``alpha`` two sides that do not differ are called different with probability alpha at most, over everything that is
tested: heads, features, strata, signals and traffic.  Rules without chance (telemetry, canaries, templates) come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, comb
from typing import TYPE_CHECKING

import msgspec

from headwatch.compare.batches import enough, fewest_labellings, joined_until_independent
from headwatch.compare.case import Found
from headwatch.compare.certain import (
    CanaryDifference,
    Difference,
    canary_differences,
    telemetry_differences,
    template_differences,
)
from headwatch.compare.effects import FeatureEffects, FigureEffect, HeadEffect, figure_effects, head_effects
from headwatch.compare.labels import labellings
from headwatch.compare.pairs import Pair, pair_of
from headwatch.compare.power import FeaturePower, SignalPower, feature_power, signal_power
from headwatch.compare.testing import tested
from headwatch.errors import CommandError
from headwatch.findings import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.compare.side import Side, Source
    from headwatch.findings import Case

MOST_UNITS = 96
"""Of one side: a longer one is read in evenly spread runs."""
_CORRELATED = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """How sides are compared."""

    alpha: float = 0.02
    labellings: int = 1999
    """Labellings of the units that are drawn, the observed one included."""
    seed: int = 0
    heads: int = 20
    """Heads that the result lists."""


class SideSummary(msgspec.Struct, frozen=True):
    """What one side consists of."""

    name: str
    models: tuple[str, ...]
    revisions: tuple[str, ...]
    unit: str
    members: int
    """Windows or requests that were read."""
    units: int
    length: int
    """Windows or requests in a unit."""
    first_ns: int
    last_ns: int
    shared_windows: int = 0
    """Windows in which the sidecar saw other models, revisions or adapters as well: their traffic, templates and canaries are
    of all together and left out."""
    windows_without_signals: int = 0
    """Of these, windows that had signals of several revisions together, which are left out too."""


class Strata(msgspec.Struct, frozen=True):
    """Where the sides may be compared, and where not."""

    compared: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    too_thin: tuple[str, ...]


class Comparison(msgspec.Struct, frozen=True):
    """What came of it."""

    different: bool
    verdict: Verdict | None
    """None where there is no difference."""
    sentence: str
    alpha: float
    p_value: float
    """Of everything that was tested, together."""
    families: dict[str, float]
    """p-value of each family of tests, counted for all."""
    first: SideSummary
    second: SideSummary
    strata: Strata
    features: list[FeatureEffects]
    heads: list[HeadEffect]
    """The most certain, in order."""
    heads_named: int
    signals: list[FigureEffect]
    traffic: list[FigureEffect]
    telemetry: list[Difference]
    canaries: list[CanaryDifference]
    templates: list[Difference]
    power: list[FeaturePower]
    signal_power: list[SignalPower]
    correlation: float
    """Largest lag-1 correlation of units that is left and was counted in."""
    warnings: tuple[str, ...] = ()


def compare(first: Source, second: Source, settings: Settings, judge: Callable[[Case], Verdict]) -> Comparison:
    """Return what differs between *first* and *second*; *judge* tells the kind of a difference.

    Raises:
        CommandError: They cannot be compared; the message says why.
    """
    sizes = first.size(), second.size()
    for source, size in zip((first, second), sizes, strict=True):
        if not size:
            raise CommandError(f"{source.name}: there are no {source.unit} in it")
    length = max(ceil(min(sizes) / MOST_UNITS), 1)
    return compared(first.read(length, MOST_UNITS), second.read(length, MOST_UNITS), settings, judge)


def compared(first: Side, second: Side, settings: Settings, judge: Callable[[Case], Verdict]) -> Comparison:
    """Return what differs between two sides that have been read, with units of the same length.

    Raises:
        CommandError: They cannot be compared; the message says why.
    """
    if not enough(first.units, second.units, settings.alpha):
        raise CommandError(_too_few(first, second, settings.alpha))
    first, second, dependence = joined_until_independent(first, second, settings.alpha)
    pair = pair_of(first, second, dependence)
    outcome = tested(pair, labellings(first.units, second.units, settings.labellings, settings.seed))
    alpha = settings.alpha
    features, heads = head_effects(pair, outcome, alpha)
    signals = figure_effects(pair, outcome, "signals", pair.signals, outcome.signals, alpha)
    traffic = figure_effects(pair, outcome, "traffic", pair.traffic, outcome.traffic, alpha)
    telemetry, canaries, templates = (
        telemetry_differences(first, second), canary_differences(first, second), template_differences(first, second),
    )  # fmt: skip
    found = Found(
        pair, alpha=alpha, features=features, heads=heads, signals=signals, traffic=traffic, telemetry=telemetry,
        canaries=canaries, templates=templates, one_model=_one_model(first, second),
    )  # fmt: skip
    verdict = judge(found.case()) if found.anything else None
    return Comparison(
        different=verdict is not None,
        verdict=verdict,
        sentence=f"no difference was found between {first.name} and {second.name}" if verdict is None else verdict.sentence,
        alpha=alpha,
        p_value=outcome.p_value,
        families=outcome.p_values,
        first=_summary(first),
        second=_summary(second),
        strata=_strata(pair),
        features=features,
        heads=heads[: settings.heads],
        heads_named=sum(feature.heads_named for feature in features),
        signals=signals,
        traffic=traffic,
        telemetry=telemetry,
        canaries=canaries,
        templates=templates,
        power=feature_power(pair, outcome, alpha),
        signal_power=signal_power(pair, outcome, alpha),
        correlation=dependence.largest,
        warnings=tuple(_warnings(pair)),
    )


def _one_model(first: Side, second: Side) -> bool:
    """Return whether both sides are requests that one deployment served at the same time: then no difference is the model's."""
    models = [(side.models, side.revisions, side.adapter) for side in (first, second)]
    overlap = first.first_ns <= second.last_ns and second.first_ns <= first.last_ns
    return first.unit == second.unit == "requests" and models[0] == models[1] and overlap


def _summary(side: Side) -> SideSummary:
    return SideSummary(side.name, side.models, side.revisions, side.unit, side.members, side.units, side.length, side.first_ns,
                       side.last_ns, side.left_out.shared, side.left_out.signals)  # fmt: skip


def _strata(pair: Pair) -> Strata:
    compared_cells = dict.fromkeys(test.cell for test in pair.heads)
    return Strata(*(tuple(cell.label for cell in cells) for cells in
                    (compared_cells, pair.only_first, pair.only_second, pair.too_thin)))  # fmt: skip


def _warnings(pair: Pair) -> list[str]:
    warnings = [_left_out(side) for side in (pair.first, pair.second) if side.left_out.shared]
    if not pair.heads:
        warnings.append("no stratum has enough units on both sides, so heads were not compared")
    if pair.dependence.largest > _CORRELATED:
        warnings.append(f"units depend strongly on each other (lag-1 correlation {pair.dependence.largest:.2f}); only a longer "
                        "range says more")  # fmt: skip
    if not (pair.first.canaries and pair.second.canaries) and not _one_model(pair.first, pair.second):
        warnings.append("no canary ran on both sides: a change of the model and of what is asked look alike in the heads")
    return warnings


def _left_out(side: Side) -> str:
    shared, signals = side.left_out.shared, side.left_out.signals
    of_revisions = f"; signals of retrieval too in {signals}, which do not tell revisions apart" if signals else ""
    return (f"{side.name}: in {shared} of {side.members} windows the sidecar saw other models, revisions or adapters as well; "
            f"their traffic, templates and canaries are of all together and were left out{of_revisions}; telemetry is the "
            "whole sidecar's")  # fmt: skip


def _too_few(first: Side, second: Side, alpha: float) -> str:
    wanted = 2
    while comb(2 * wanted, wanted) < fewest_labellings(alpha):
        wanted += 1
    return (f"{first.name} has {first.units} and {second.name} {second.units} {first.unit}: too few to tell a difference "
            f"from chance at level {alpha:g}; give about {wanted} of each, or more of one")  # fmt: skip
