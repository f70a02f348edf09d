"""What ``headwatch bench peers`` says: tokens a second of every way, and whether headwatch is ahead of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from headwatch.bench.arms import ALL, ALL_TENTH, PLAIN
from headwatch.bench.conditions import Conditions
from headwatch.bench.statistics import Interval, paired_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

COPY = "copy_all"
"""Queries and keys are copied out, every row is summarised."""
COPY_TENTH = "copy_tenth"
TRANSFORMERS = "transformers"
"""transformers without attention weights."""
ATTENTIONS = "attentions_all"
ATTENTIONS_TENTH = "attentions_tenth"
BASIS = {ALL: PLAIN, ALL_TENTH: PLAIN, COPY: PLAIN, COPY_TENTH: PLAIN, ATTENTIONS: TRANSFORMERS,
         ATTENTIONS_TENTH: TRANSFORMERS}  # fmt: skip
"""What each way is relative to: the same engine without summaries."""
RIVALS = {COPY: ALL, COPY_TENTH: ALL_TENTH, ATTENTIONS: ALL, ATTENTIONS_TENTH: ALL_TENTH}
"""Each peer, and headwatch doing the same work."""


@dataclass(frozen=True, slots=True)
class PeerCycle:
    """One cycle at one batch size: tokens a second of each arm that was in it."""

    batch: int
    speeds: dict[str, float]


class WayFigures(msgspec.Struct, frozen=True):
    """One way at one batch size."""

    way: str
    batch: int
    tokens_per_second: float
    relative: Interval | None
    """To the same engine without summaries; null for those themselves."""
    headwatch_ahead: Interval | None
    """headwatch's tokens a second over this peer's, same rows summarised."""
    headwatch_ahead_relative: Interval | None
    """headwatch's loss against its engine, over this peer's against its own."""


class PeersReport(msgspec.Struct, frozen=True):
    """The result.  Intervals are 95 %."""

    bars: dict[str, float]
    """Each must be above 1: headwatch's tokens a second over the peer's."""
    intervals: dict[str, Interval]
    passed: bool
    ways: list[WayFigures]
    conditions: Conditions


def report_of(cycles: Sequence[PeerCycle], conditions: Conditions) -> PeersReport:
    """Return the report on *cycles*."""
    ways: list[WayFigures] = []
    intervals: dict[str, Interval] = {}
    for batch in sorted({item.batch for item in cycles}):
        speeds = [item.speeds for item in cycles if item.batch == batch]
        for way in dict.fromkeys(way for item in speeds for way in item):
            figures = _figures(way, batch, speeds)
            ways.append(figures)
            if figures.headwatch_ahead is not None and figures.headwatch_ahead_relative is not None:
                intervals[f"ahead_of_{way}_b{batch}"] = figures.headwatch_ahead
                intervals[f"ahead_of_{way}_relative_b{batch}"] = figures.headwatch_ahead_relative
    bars = {name: round(interval.value, 5) for name, interval in intervals.items() if "_relative_" not in name}
    return PeersReport(bars, intervals, all(value > 1.0 for value in bars.values()), ways, conditions)


def render(report: PeersReport) -> str:
    """Return *report* for people."""
    lines = [
        report.conditions.headline(),
        "",
        f"{'way':<18}{'batch':>6}{'tokens/s':>10}{'relative':>10}{'95 % interval':>18}{'headwatch over it':>28}",
    ]
    for item in report.ways:
        relative = "" if item.relative is None else f"{item.relative.value:.3f}"
        interval = "" if item.relative is None else f"{item.relative.low:.3f} to {item.relative.high:.3f}"
        ahead = item.headwatch_ahead
        over = "" if ahead is None else f"{ahead.value:.3f} ({ahead.low:.3f} to {ahead.high:.3f})"
        lines.append(f"{item.way:<18}{item.batch:>6}{item.tokens_per_second:>10.2f}{relative:>10}{interval:>18}{over:>28}")
    lines.append("")
    lines.extend(f"behind: {name} {value:.3f}" for name, value in report.bars.items() if value <= 1.0)
    lines.append(f"{'passed' if report.passed else 'FAILED'}; {report.conditions.seconds:.0f} s")
    return "\n".join(lines)


def _figures(way: str, batch: int, speeds: Sequence[dict[str, float]]) -> WayFigures:
    basis, rival = BASIS.get(way), RIVALS.get(way)
    speeds = [item for item in speeds if way in item]
    harmonic = len(speeds) / sum(1.0 / item[way] for item in speeds)  # every cycle makes the same tokens
    return WayFigures(
        way=way,
        batch=batch,
        tokens_per_second=round(harmonic, 3),
        relative=None if basis is None else paired_ratio([[item[way] / item[basis] for item in speeds]]),
        headwatch_ahead=None if rival is None else paired_ratio([[item[rival] / item[way] for item in speeds]]),
        headwatch_ahead_relative=None if rival is None or basis is None else paired_ratio([
            [item[rival] / item[PLAIN] / (item[way] / item[basis]) for item in speeds]
        ]),
    )  # fmt: skip
