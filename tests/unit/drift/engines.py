"""Engines on files of their own, fed with simulated deployments."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from headwatch.drift.engine import DriftEngine
from headwatch.drift.keeper import Keeper
from headwatch.history.file import History

from .windows import CONFIG, Deployment

LEARNED = CONFIG.min_baseline_windows
BEGUN = 100
"""So far no baseline was learned anew."""


@contextmanager
def running(folder: Path, config=CONFIG, seconds: float = 60.0):
    """An engine on the files of *folder*."""
    keeper, history = Keeper(folder / "drift.db"), History(folder / "history.db")
    try:
        yield DriftEngine(config, seconds, keeper, history)
    finally:
        keeper.close()
        history.close()


def fed(engine: DriftEngine, deployment: Deployment, first: int, last: int) -> dict:
    """Feed windows and return the events by the window's index."""
    events = {}
    for index in range(first, last):
        step = engine.step(deployment.window(index))
        engine.save()
        if step.event is not None:
            events[index] = step.event
    return events


def status(engine: DriftEngine, deployment: Deployment, index: int):
    found = engine.step(deployment.window(index)).status
    engine.save()
    return found
