"""A comparison for a terminal: the verdict first, then what it rests on, then what could not have been seen.

Plain text in aligned columns, because it is read in the log of a build as often as in a terminal.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwatch.compare.effects import FigureEffect
    from headwatch.compare.run import Comparison, SideSummary

_GAP = "  "
_FIGURES = 12
_WIDTH = 128
_BARS = "▁▂▃▄▅▆▇█"


def render(comparison: Comparison) -> str:
    """Return *comparison* as lines of text."""
    return "\n".join(line.rstrip() for part in _parts(comparison) for line in part)


def _parts(found: Comparison) -> Iterator[Sequence[str]]:
    yield _verdict(found)
    yield ["", _side("A", found.first), _side("B", found.second)]
    families = ", ".join(f"{name} {_p(p_value)}" for name, p_value in found.families.items())
    yield [f"tested together at level {found.alpha:g}: p = {_p(found.p_value)} ({families})"]
    yield _strata(found)
    yield _certain(found)
    yield _features(found)
    yield _heads(found)
    yield _figures("signals of retrieval", found.signals, found.alpha, groups=True)
    yield _figures("traffic (shares of requests; lengths as log2 of tokens)", found.traffic, found.alpha, groups=False)
    yield _power(found)
    if found.warnings:
        yield ["", *(f"note: {warning}" for warning in found.warnings)]


def _verdict(found: Comparison) -> list[str]:
    verdict = found.verdict
    if verdict is None:
        return [f"NO DIFFERENCE  {found.sentence}"]
    lines = [
        f"DIFFERENT  {verdict.drift_class} ({verdict.cause}), confidence {verdict.confidence:.2f}",
        f"  {verdict.sentence}",
    ]
    if verdict.runner_up:
        lines.append(f"  or else: {verdict.runner_up}. {verdict.tells_apart}")
    return lines


def _side(letter: str, side: SideSummary) -> str:
    models = ", ".join(filter(None, (*side.models, *side.revisions))) or "one model"
    unit = "" if side.length == 1 else f" in {side.units} units of {side.length}"
    return (f"{letter}  {side.name}: {side.members} {side.unit}{unit}, {_time(side.first_ns)} to {_time(side.last_ns)} UTC, "
            f"{models}")  # fmt: skip


def _strata(found: Comparison) -> list[str]:
    strata = found.strata
    lines = [f"compared within {len(strata.compared)} strata: {_shortened(strata.compared) or 'heads were not compared'}"]
    for labels, text in (
        (strata.only_first, "only in A, not compared"), (strata.only_second, "only in B, not compared"),
        (strata.too_thin, "too few units, not compared"),
    ):  # fmt: skip
        if labels:
            lines.append(f"{text}: {_shortened(labels)}")
    return lines


def _certain(found: Comparison) -> list[str]:
    lines = []
    if found.canaries:
        differing = [one for one in found.canaries if one.differs]
        lines.append(f"canaries on both sides: {len(found.canaries)}, of which {len(differing)} differ"
                     + "".join(f"; {one.prompt} deviates by {one.second.deviation:.2g} (A {one.first.deviation:.2g})"
                               for one in differing[:3]))  # fmt: skip
    lines += [f"telemetry: {one.name} {_number(one.before)} in A, {_number(one.after)} in B" for one in found.telemetry]
    lines += [f"template: {one.name.removeprefix('template:')} had {one.before:.0%} of its route in A, {one.after:.0%} in B"
              for one in found.templates]  # fmt: skip
    return lines


def _features(found: Comparison) -> list[str]:
    if not found.features:
        return []
    rows = [
        (feature.feature, _p(feature.p_value), str(feature.heads_named), f"{feature.median_effect:.2f}",
         _shortened([f"{label} {_p(p)}" for label, p in feature.strata.items() if p <= found.alpha]))
        for feature in found.features
    ]  # fmt: skip
    lines = ["", *_table(("feature", "p over all heads", "heads named", "median |effect|", "strata that differ"), rows)]
    differing = [feature for feature in found.features if feature.heads_named or feature.p_value <= found.alpha]
    if differing:
        maps = [(feature.feature, *_by_layer(feature.effect)) for feature in differing]
        lines += ["", *_table(("feature", "median |effect| by layer, from the first on", "largest"), maps)]
    return lines


def _by_layer(effect: Sequence[Sequence[float | None]]) -> tuple[str, str]:
    """Return a bar for each layer, and where the largest one is."""
    layers = [sorted(abs(value) for value in layer if value is not None) for layer in effect]
    medians = [layer[len(layer) // 2] if layer else 0.0 for layer in layers]
    largest = max(medians)
    bars = [_BARS[round((len(_BARS) - 1) * median / largest)] if largest > 0 else _BARS[0] for median in medians]
    return "".join(bars), f"{largest:.2f} sd in layer {medians.index(largest)}"


def _heads(found: Comparison) -> list[str]:
    heads = [head for head in found.heads if head.p_value <= found.alpha]
    if not heads:
        return []
    rows = [
        (str(head.layer), str(head.head), head.feature, f"{head.before:.4f}", f"{head.after:.4f}", f"{head.effect:+.2f} sd",
         f"[{head.low:+.4f}, {head.high:+.4f}]", _p(head.p_value))
        for head in heads
    ]  # fmt: skip
    title = f"heads that differ ({found.heads_named} named, {len(heads)} shown; intervals of A to B hold all at once)"
    return ["", title, *_table(("layer", "head", "feature", "A", "B", "effect", "interval of the difference", "p"), rows)]


def _figures(title: str, effects: Sequence[FigureEffect], alpha: float, *, groups: bool) -> list[str]:
    if not effects:
        return []
    certain = [effect for effect in effects if effect.p_value <= alpha]
    shown = certain[:_FIGURES] or effects[:3]
    rows = [
        (effect.name, *((effect.group,) if groups else ()), _number(effect.before), _number(effect.after),
         f"{effect.effect:+.2f} sd", f"[{_number(effect.low)}, {_number(effect.high)}]", _p(effect.p_value))
        for effect in shown
    ]  # fmt: skip
    said = f"{len(certain)} of {len(effects)} differ" if certain else f"none of {len(effects)} differs; the nearest to it"
    heads = ("name", *(("requests",) if groups else ()), "A", "B", "effect", "interval of the difference", "p")
    return ["", f"{title}: {said}", *_table(heads, rows)]


def _power(found: Comparison) -> list[str]:
    rows = [
        (power.feature, _size(power.all_heads, power.all_heads_units), _size(power.one_head, power.one_head_units))
        for power in found.power
    ]  # fmt: skip
    lines = ["", "what this data would have shown with 80 % probability (sd of a unit, and units of the figure)"]
    if rows:
        lines += _table(("feature", "a shift of all heads", "a shift of one head"), rows)
    if found.signal_power:
        signals = [(power.name, _size(power.smallest, power.smallest_units)) for power in found.signal_power]
        lines += ["", *_table(("signal", "a shift in all groups of requests"), signals)]
    return lines


def _size(deviations: float | None, units: float | None) -> str:
    return "none" if deviations is None or units is None else f"{deviations:.2f} sd = {_number(units)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads) - 1)]
    padded = [[cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)] for line in lines]
    return [_GAP.join((*cells, line[-1])) for cells, line in zip(padded, lines, strict=True)]


def _shortened(labels: Sequence[str]) -> str:
    text = ""
    for place, label in enumerate(labels):
        longer = f"{text}, {label}" if text else label
        if len(longer) > _WIDTH and text:
            return f"{text} and {len(labels) - place} more"
        text = longer
    return text


def _number(value: float) -> str:
    if math.isnan(value):
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - three digits are enough below


def _p(p_value: float) -> str:
    return f"{p_value:.4f}" if p_value < 0.01 else f"{p_value:.2f}"  # noqa: PLR2004 - the level is a few per cent


def _time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")
