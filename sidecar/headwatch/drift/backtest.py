"""What would have paged: a fresh engine over windows that are kept.

The engine is the one that runs in the sidecar, with a state of its own that is thrown away; the history is only read.  It
begins with a given baseline, or learns its own as a new deployment would.  Pages that come while the change of an earlier one
is still there belong to the same episode: a person would have been paged once.

Cost: that of stepping every window again.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.drift.engine import DriftEngine
from headwatch.drift.keeper import Keeper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.config import DriftConfig
    from headwatch.drift.engine import Step
    from headwatch.drift.kept import NewBaseline
    from headwatch.findings import DriftEvent
    from headwatch.history.file import History
    from headwatch.observed import ObservedWindow


@dataclass(frozen=True, slots=True)
class Replayed:
    """One window that was stepped again."""

    window: ObservedWindow
    step: Step
    opens: bool
    """Whether its event is the first of its episode."""


def backtest(
    history: History, config: DriftConfig, window_seconds: float, baseline: NewBaseline | None, first: int, last: int
) -> Iterator[Replayed]:
    """Yield the windows numbered *first* to *last* of *history*, opened for reading, as an engine sees them.

    *baseline* is in force from the start; None: one is learned on the way.
    """
    with tempfile.TemporaryDirectory(prefix="headwatch-backtest-") as folder:
        keeper = Keeper(Path(folder) / "drift.db")
        try:
            if baseline is not None:
                keeper.promote(keeper.add(baseline), baseline.created_ns, "backtest")
            engine = DriftEngine(config, window_seconds, keeper, history)
            engine.begin(first)
            episode: DriftEvent | None = None
            for window in history.read(first, last):
                step = engine.step(window)
                if episode is not None and step.event is None and engine.calm(episode):
                    episode = None
                yield Replayed(window, step, opens=step.event is not None and episode is None)
                episode = step.event or episode
                engine.freeze(on=episode is not None)
                engine.save()
        finally:
            keeper.close()
