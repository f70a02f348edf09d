"""``headwatch bench drift``: null cells, delay cells and the time of a window, beside the bars they must keep."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headwatch.bench.drift import cells, nulls
from headwatch.bench.drift.contest import Watch, false_alarms
from headwatch.bench.drift.pager import Headwatch
from headwatch.bench.drift.peers import PEERS
from headwatch.bench.drift.peers.limits import LIMITS
from headwatch.bench.drift.report import BOUNDS, DriftReport, PeerRow, Size
from headwatch.bench.drift.streams import DAY_WINDOWS, FAMILIES
from headwatch.bench.drift.timing import window_ms
from headwatch.bench.drift.tuning import tuned
from headwatch.bench.machine import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headwatch.bench.drift.cells import DelayCell
    from headwatch.bench.drift.nulls import NullCell

QUICK = Size(null_replicas=8, null_heads=64, null_days=1.0, delay_replicas=24, delay_heads=128, patience=1.0)
FULL = Size(null_replicas=24, null_heads=128, null_days=2.0, delay_replicas=24, delay_heads=128, patience=1.5)
SEED = 20_261_129
TUNING_SEED = 901
PEER_PAGES_A_DAY = 1.0
TUNING_REPLICAS = 24
TUNING_WINDOWS = 2 * DAY_WINDOWS
_CUSTOMARY_WINDOWS = 360
_TIMED_WINDOWS = 64


def run(*, quick: bool, tune: bool = False, progress: Callable[[str], None] = lambda _: None) -> DriftReport:
    """Return what was seen: in a quarter of an hour on one core with *quick*, in hours without; *tune* the peers anew first."""
    started = time.monotonic()
    size = QUICK if quick else FULL
    progress("time of a window")
    milliseconds = window_ms(_TIMED_WINDOWS)
    null_cells = []
    for cell in nulls.cells(nulls.NullSize(size.null_replicas, size.null_heads, size.null_days, SEED)):
        progress(f"{cell.family}, {cell.baseline}: {cell.pages} pages where {cell.expected:g} were promised")
        null_cells.append(cell)
    limits = _tune(size, progress) if tune else LIMITS
    fixed = {name: max(limits[name].values()) for name in PEERS}
    peers = [_peer(name, limits[name], size, progress) for name in PEERS]
    delay_size = cells.DelaySize(size.delay_replicas, size.delay_heads, SEED + 500, size.patience)
    delay_cells: list[DelayCell] = []
    own_null_cells: list[DelayCell] = []
    for null in cells.NULLS:
        progress(f"delays on {null}: headwatch")
        own = cells.medians(null, delay_size, Headwatch(nulls.INTERVAL_WINDOWS), cells.shifts())
        one_limit = {name: PEERS[name](fixed[name]) for name in PEERS}
        delay_cells += cells.run(null, delay_size, own, one_limit, progress)
        own_limit = {name: PEERS[name](limits[name][null]) for name in PEERS}
        own_null_cells += cells.run(null, delay_size, own, own_limit, progress)
    bars = _bars(null_cells, delay_cells, milliseconds)
    return DriftReport(
        bars=bars,
        bounds={name: f"{'<=' if most else '>='} {bound:g}" for name, (bound, most) in BOUNDS.items()},
        passed=all(bars[name] <= bound if most else bars[name] >= bound for name, (bound, most) in BOUNDS.items()),
        quick=quick, size=size, promised_interval_windows=nulls.INTERVAL_WINDOWS, nulls=null_cells, peers=peers,
        delays=delay_cells, delays_own_null=own_null_cells, machine=describe(), seconds=round(time.monotonic() - started, 1),
    )


def _bars(null_cells: list[NullCell], delay_cells: list[DelayCell], milliseconds: float) -> dict[str, float]:
    counted = [cell for cell in null_cells if cell.paging]
    worst = max(counted, key=lambda cell: cell.ratio)
    return {
        "worst_false_alarm_ratio": worst.ratio,
        "worst_false_alarm_ratio_upper": max(cell.upper for cell in counted),
        "null_families": float(len({cell.family.removesuffix(f", {nulls.MANY_HEADS} heads") for cell in counted})),
        "expected_alarms": round(sum(cell.expected for cell in counted), 1),
        "cells": float(len(delay_cells)),
        "cells_slower_than_best_peer": float(sum(cell.slower for cell in delay_cells)),
        "window_ms_5120": round(milliseconds, 2),
    }


def _tune(size: Size, progress: Callable[[str], None]) -> Mapping[str, Mapping[str, float]]:
    found: dict[str, Mapping[str, float]] = {}
    for name, peer in PEERS.items():
        progress(f"tuning {name}")
        watches = [
            Watch(family, DAY_WINDOWS, TUNING_REPLICAS, size.delay_heads, TUNING_SEED) for family in FAMILIES
        ]
        found[name] = tuned(peer, watches, TUNING_WINDOWS, PEER_PAGES_A_DAY / DAY_WINDOWS)
    return found


def _peer(name: str, limits: Mapping[str, float], size: Size, progress: Callable[[str], None]) -> PeerRow:
    """Return what *name* does at its customary limit on independent heads, and to what it was tuned."""
    progress(f"false alarms of {name}")
    peer = PEERS[name]
    watch = Watch("independent", DAY_WINDOWS, 4, size.delay_heads, SEED + 700)
    pages = int(false_alarms([watch], _CUSTOMARY_WINDOWS, peer(peer.customary))[0].sum())
    customary = pages * DAY_WINDOWS / (_CUSTOMARY_WINDOWS * watch.replicas)
    worst = max(limits, key=lambda family: limits[family])
    by_family = {family: round(value, 4) for family, value in limits.items()}
    return PeerRow(name, round(peer.customary, 4), round(customary, 2), by_family[worst], worst, by_family)
