"""What a person would have been paged for: the watch of a sidecar once more, over windows that are kept.

It is :class:`headwatch.watch.watch.Watch` itself, so everything that pages is in it: the clock of drift detection, canaries,
faults of telemetry, templates; and what makes a page of it: triage, one incident for one cause, reopening, releases that were
marked as planned.  Its state is its own and thrown away, the history is only read, nothing is sent and no canary is asked.
Shadow mode of the sidecar as a whole is lifted, since the question is what would page.

What a history does not hold is not replayed: silences, and what people ruled.  An incident that nobody closes stops learning
until it is over.

Cost: that of stepping every window again.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwatch.config import IncidentConfig
from headwatch.drift.keeper import Keeper
from headwatch.places import DRIFT_STATE
from headwatch.watch.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.config import Config
    from headwatch.drift.kept import NewBaseline
    from headwatch.findings import Incident
    from headwatch.history.file import History
    from headwatch.incident.book import Change
    from headwatch.observed import ObservedWindow
    from headwatch.watch.watch import Seen


@dataclass(frozen=True, slots=True)
class Replayed:
    """One window that was watched again."""

    window: ObservedWindow
    seen: Seen


class Page(msgspec.Struct, frozen=True):
    """One time that a person would have been woken, and what that person would have read."""

    window: int
    time_ns: int
    drift_class: str
    cause: str
    confidence: float
    runner_up: str | None
    sentence: str


@dataclass(slots=True)
class Told:
    """One incident of a backtest."""

    window: int
    """In which it opened."""
    incident: Incident
    """As it was last."""
    pages: list[Page] = field(default_factory=list)
    """None: nobody would have been woken.  Several: it was reopened."""


@dataclass(slots=True)
class Outcome:
    """What a backtest came to, window by window."""

    windows: int = 0
    warming_up: int = 0
    """Windows without a baseline, in which only canaries and faults of telemetry could page."""
    reached: int = 0
    """How often the clock reached its limit; of one incident more than once where its change goes on."""
    incidents: dict[str, Told] = field(default_factory=dict)

    def add(self, replayed: Replayed) -> None:
        """Take the next window."""
        self.windows += 1
        self.warming_up += replayed.seen.status.state == "warming_up"
        self.reached += replayed.seen.event is not None
        for change in replayed.seen.changes:
            self._follow(change, replayed.window)

    @property
    def pages(self) -> int:
        """Return how often a person would have been woken."""
        return sum(len(told.pages) for told in self.incidents.values())

    def _follow(self, change: Change, window: ObservedWindow) -> None:
        incident, verdict = change.incident, change.incident.verdict
        told = self.incidents.get(incident.id)
        woken = incident.paged and (told is None or not told.incident.paged or change.action == "reopened")
        if told is None:
            told = self.incidents[incident.id] = Told(window.number, incident)
        told.incident = incident
        if woken:
            told.pages.append(Page(
                window.number, window.end_ns, verdict.drift_class, verdict.cause, verdict.confidence, verdict.runner_up,
                verdict.sentence,
            ))  # fmt: skip


def backtest(history: History, config: Config, baseline: NewBaseline | None, first: int, last: int) -> Iterator[Replayed]:
    """Yield the windows numbered *first* to *last* of *history*, opened for reading, as a sidecar's watch sees them.

    *baseline* is in force from the start; None: one is learned on the way.

    Raises:
        HeadwatchError: The history or the baseline cannot be read.
    """
    config = msgspec.structs.replace(
        config, drift=msgspec.structs.replace(config.drift, shadow=False),
        incident=IncidentConfig(reopen_seconds=config.incident.reopen_seconds),
    )  # fmt: skip
    now = 0
    with tempfile.TemporaryDirectory(prefix="headwatch-backtest-") as name:
        folder = Path(name)
        if baseline is not None:
            _put_in_force(baseline, folder)
        # an event waits for a canary as it would live: the run that was asked for then is in the history
        watch = Watch(config, folder, lambda: now, ask_canary=lambda: True, history=history)
        try:
            watch.engine.begin(first)
            for window in history.read(first, last):
                now = window.end_ns
                for deploy in window.deploys:
                    watch.book.calendar.add_deploy(
                        deploy.title, revision=deploy.revision, who=deploy.who, planned_seconds=deploy.planned_seconds,
                        time_ns=deploy.time_ns,
                    )  # fmt: skip
                yield Replayed(window, watch.take(window))
        finally:
            watch.close()


def _put_in_force(baseline: NewBaseline, folder: Path) -> None:
    keeper = Keeper(folder / DRIFT_STATE)
    try:
        keeper.promote(keeper.add(baseline), baseline.created_ns, "backtest")
    finally:
        keeper.close()
