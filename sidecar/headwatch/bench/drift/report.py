"""What ``headwatch bench drift`` prints, as a document and as text."""

from __future__ import annotations

import msgspec

from headwatch.bench.drift.cells import DelayCell
from headwatch.bench.drift.nulls import NullCell
from headwatch.bench.machine import Machine

BOUNDS: dict[str, tuple[float, bool]] = {
    "worst_false_alarm_ratio": (2.0, True),
    "null_families": (12, False),
    "expected_alarms": (100, False),
    "cells": (24, False),
    "cells_slower_than_best_peer": (0, True),
    "window_ms_5120": (100, True),
}
"""Bound of each bar, and whether it is the most (or the least) that is allowed."""


class Size(msgspec.Struct, frozen=True):
    """How much is simulated."""

    null_replicas: int
    null_heads: int
    null_days: float
    delay_replicas: int
    delay_heads: int
    patience: float
    """Times headwatch's own delay that a peer is watched for."""


class PeerRow(msgspec.Struct, frozen=True):
    """One peer: its customary limit, and the one it was tuned to."""

    name: str
    customary: float
    pages_a_day_customary: float
    """On independent heads."""
    limit: float
    decided_by: str
    """The null family that asks for the largest limit."""
    limits: dict[str, float]
    """What each null family alone would ask for."""


class DriftReport(msgspec.Struct, frozen=True):
    """The whole of it."""

    bars: dict[str, float]
    bounds: dict[str, str]
    passed: bool
    quick: bool
    size: Size
    promised_interval_windows: float
    nulls: list[NullCell]
    peers: list[PeerRow]
    delays: list[DelayCell]
    delays_own_null: list[DelayCell]
    """The same changes against peers that were tuned for the very null of the cell, which nobody can in practice."""
    machine: Machine
    seconds: float


def render(report: DriftReport) -> str:
    """Return *report* as text for a terminal."""
    lines = ["False alarms over those that were promised (one a day):", ""]
    lines += [_null(cell) for cell in report.nulls]
    lines += ["", "Peers, at their customary limit on independent heads, and tuned:", ""]
    lines += [
        f"  {peer.name:14s} {peer.pages_a_day_customary:8.1f} a day at {peer.customary:g}; tuned to {peer.limit:g}"
        for peer in report.peers
    ]
    lines += ["", "Median delay in windows (- is not found):", ""]
    lines += [_delay(cell) for cell in report.delays]
    lines += ["", *(f"{name}: {value:g} ({report.bounds.get(name, 'no bar')})" for name, value in report.bars.items())]
    if report.delays_own_null:
        behind = sum(cell.slower for cell in report.delays_own_null)
        lines.append(f"slower than the best peer tuned for that null alone: {behind} of {len(report.delays_own_null)} cells")
    return "\n".join(lines)


def _null(cell: NullCell) -> str:
    note = "" if cell.paging else "  (not paging: warming up)"
    return f"  {cell.family:26s} {cell.baseline:8s} {cell.ratio:6.2f}, at most {cell.upper:6.2f}; {cell.days:g} days{note}"


def _delay(cell: DelayCell) -> str:
    best = f"{cell.best_peer} {cell.best_peer_delay:g}" if cell.best_peer_delay is not None else "no peer"
    own = "-" if cell.headwatch is None else f"{cell.headwatch:g}"
    slower = "  SLOWER" if cell.slower else ""
    return f"  {cell.null:26s} {cell.kind:6s} {cell.size:4g} sd in {cell.share:4.0%}: {own:>6s}, {best}{slower}"
