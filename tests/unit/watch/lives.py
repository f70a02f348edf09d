"""A sidecar's watch over time: its folder, a clock that goes with the windows, and what its route was to send."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from headwatch.config import IncidentConfig
from headwatch.watch.watch import Watch

from .scenes import BASELINE, CONFIG, LAG, SECOND, window

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.findings import Incident
    from headwatch.observed import ObservedWindow

TOLD = msgspec.structs.replace(CONFIG, incident=IncidentConfig(route="webhook", webhook_url="http://127.0.0.1:1/"))
SHADOW = msgspec.structs.replace(TOLD, drift=msgspec.structs.replace(TOLD.drift, shadow=True))
FIRST = BASELINE + 2 * LAG + 5
"""The first window after those of :func:`headwatch.tests.scenes.taught`."""


class Life:
    """A watch on *folder*, a copy of what one has learned.  Windows are counted from 0."""

    def __init__(self, folder: Path, config=TOLD, *, asks: bool = False) -> None:
        self.folder, self.asks = folder, asks
        self.now_ns = window(FIRST).start_ns
        self.pins = 0
        self.watch = self._opened(config)

    def _opened(self, config) -> Watch:
        return Watch(config, self.folder, lambda: self.now_ns, lambda: self.asks, self._pin)

    def _pin(self) -> None:
        self.pins += 1

    def restart(self, config=TOLD) -> None:
        """Kill it and open it again."""
        self.watch.close()
        self.watch = self._opened(config)

    def take(self, seen: ObservedWindow) -> list[str]:
        """Take *seen* when its window has closed; return what became of incidents."""
        self.now_ns = seen.end_ns + 2 * SECOND
        return [change.action for change in self.watch.take(seen).changes]

    def take_and_kill(self, seen: ObservedWindow) -> None:
        """Take *seen*, and kill it at the worst instant: the book has what came of it, detection has saved nothing of it."""
        saved = {path: path.read_bytes() for path in self.folder.glob("drift.db*") if not path.name.endswith("-shm")}
        self.take(seen)
        self.watch.close()
        for path in self.folder.glob("drift.db*"):
            path.unlink()
        for path, content in saved.items():
            path.write_bytes(content)
        self.watch = self._opened(TOLD)
        self.watch.catch_up()

    @property
    def incidents(self) -> list[Incident]:
        return self.watch.book.list()

    @property
    def pages(self) -> list[str]:
        """Return what was written for the route that pages, in order."""
        rows = self.watch.book._ledger.read("SELECT kind FROM outbox WHERE page ORDER BY number")
        return [row["kind"] for row in rows]


def after(number: int, **figures) -> ObservedWindow:
    """Return window *number* after what was learned."""
    return window(FIRST + number, **figures)


def faulty(seen: ObservedWindow, **figures: float) -> ObservedWindow:
    """Return *seen* with other *figures* of telemetry."""
    return replace(seen, telemetry={**seen.telemetry, **(figures or {"refused_layers": 2.0})})
