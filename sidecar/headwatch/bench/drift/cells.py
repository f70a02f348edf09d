"""The delay cells of ``bench drift``: after how many windows each detector pages on a change, on the same streams.

Forty-eight changes (mean, spread, ramp; a quarter to two standard deviations; 1 to 100 % of the heads) on independent heads and
on slow ones.  Every detector learns a day, watches two healthy hours, and then meets each change from the same state.

A detector that waits long enough pages on anything.  So each is also run on the same streams with no change, and counts as
having *found* a change only where its median delay is at most half of the median time until it pages with no change (or half of
what was watched, where it did not).  A peer that is slower than headwatch is watched no longer than its delay matters.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from headwatch.bench.drift.contest import Contestant, Watch, delays
from headwatch.bench.drift.shifts import Shift

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Kind = Literal["mean", "spread", "ramp"]
KINDS: tuple[Kind, ...] = ("mean", "spread", "ramp")
SIZES = (0.25, 0.5, 1.0, 2.0)
SHARES = (0.01, 0.05, 0.3, 1.0)
NULLS = ("independent", "AR .9 with sampling noise")
SLOWER = 1.25
"""Times the delay of the best peer beyond which a cell counts as slower."""
BASELINE_WINDOWS = 1440
RUN_IN_WINDOWS = 120
MOST_WINDOWS = 1440
"""Windows after a change: as many as there are between two false alarms that are promised."""
NOTHING = Shift("mean", 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class DelaySize:
    """How much of each delay cell is watched."""

    replicas: int
    heads: int
    seed: int
    patience: float
    """Times headwatch's own delay that a peer is given."""


class DelayCell(msgspec.Struct, frozen=True):
    """One change on one null.  Delays are medians in windows; None: not found."""

    null: str
    kind: str
    size: float
    share: float
    headwatch: float | None
    best_peer: str
    best_peer_delay: float | None
    ratio: float | None
    """headwatch's delay over that of the best peer; None where only one of them, or none, found it."""
    slower: bool
    peers: dict[str, float | None]


def shifts() -> list[Shift]:
    """Return all changes."""
    return [Shift(kind, size, share) for kind, size, share in itertools.product(KINDS, SIZES, SHARES)]


def run(
    null: str, size: DelaySize, own: Sequence[float | None], peers: Mapping[str, Contestant],
    progress: Callable[[str], None] = lambda _: None,
) -> list[DelayCell]:
    """Return the cells of one *null*, in which headwatch's delays are *own*."""
    changes = shifts()
    patience = [MOST_WINDOWS if delay is None else min(MOST_WINDOWS, round(delay * size.patience) + 1) for delay in own]
    found = {}
    for name, peer in peers.items():
        progress(f"delays on {null}: {name}")
        found[name] = medians(null, size, peer, changes, patience)
    return [
        judge(null, change, own[number], {name: values[number] for name, values in found.items()})
        for number, change in enumerate(changes)
    ]


def medians(
    null: str, size: DelaySize, contestant: Contestant, changes: Sequence[Shift], give_up: Sequence[int] | None = None
) -> list[float | None]:
    """Return the median delay of *contestant* in each of *changes*; None where it found nothing before it gave up."""
    patience = [MOST_WINDOWS] * len(changes) if give_up is None else give_up
    watch = Watch(null, BASELINE_WINDOWS, size.replicas, size.heads, size.seed)
    applied = [change.applied(size.replicas, size.heads, size.seed + place) for place, change in enumerate([NOTHING, *changes])]
    nothing, *found = (
        float(np.median(delay))
        for delay in delays(watch, RUN_IN_WINDOWS, MOST_WINDOWS, applied, contestant, [MOST_WINDOWS, *patience])
    )
    latest = min(nothing, MOST_WINDOWS) / 2.0
    return [delay if delay <= latest else None for delay in found]


def judge(null: str, change: Shift, own: float | None, peers: dict[str, float | None]) -> DelayCell:
    """Return the cell of *change*: headwatch's delay beside that of the best of *peers*."""
    known = {name: delay for name, delay in peers.items() if delay is not None}
    best = min(known, key=lambda name: known[name]) if known else ""
    delay = known.get(best)
    ratio = round(own / delay, 3) if own is not None and delay is not None else None
    slower = delay is not None and (ratio is None or ratio > SLOWER)
    return DelayCell(null, change.kind, change.size, change.share, own, best, delay, ratio, slower, peers)
