"""One window after another: does anything page, what kind of thing is it, and is what was paged over?

Guarantees, at a kill at any instant too: each window is kept, stepped, told of and saved, in this order, and the state of
detection is saved last.  A window that was kept and not saved is stepped again at the next start, makes the same event, and the
book knows it already.  So an incident is opened once for one cause, and none is lost.

An event that heads or signals made is judged with a canary run that is younger than the change, where canaries are sent: it
waits for one, for :data:`HOLD_WINDOWS` at most.  Nothing is saved while it waits.

Cost: that of :mod:`headwatch.drift.engine`, and one SQLite transaction a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.drift.engine import DriftEngine
from headwatch.drift.keeper import Keeper
from headwatch.findings import Case, DriftEvent
from headwatch.history.file import History
from headwatch.incident.book import Book
from headwatch.incident.exhibits import exhibits_of
from headwatch.incident.ledger import FILE_NAME
from headwatch.incident.outbox import routes_of
from headwatch.incident.table import UNTOLD
from headwatch.incident.triage import triage
from headwatch.observed import closed_by_count
from headwatch.places import DRIFT_STATE, HISTORY
from headwatch.watch.recent import WINDOWS, Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from headwatch.config import Config
    from headwatch.findings import DriftStatus, Evidence, Incident
    from headwatch.incident.book import Change
    from headwatch.observed import ObservedWindow

HOLD_WINDOWS = 2
_SETTLED = frozenset({"known_change", "false_page"})
"""Rulings after which what goes on as it was is no news."""
_RULED = frozenset({"acknowledged", "resolved", "ruled"})
"""Entries of the audit that may bring a ruling."""
_SETTLED_NS = 7 * 86_400 * 10**9
_CERTAIN = frozenset({"canary", "telemetry", "traffic"})
_NEAR_NS = 3600 * 10**9
"""A release so long before a change is shown beside it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one window came to."""

    status: DriftStatus
    event: DriftEvent | None
    """What made the clock reach its limit."""
    changes: tuple[Change, ...]
    """Of incidents, in order."""


class Watch:
    """Detection, triage and the book of one sidecar.  Not safe from threads; the book is."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        now: Callable[[], int],
        ask_canary: Callable[[], bool] = lambda: False,
        pin_canary: Callable[[], None] = lambda: None,
        history: History | None = None,
    ) -> None:
        """Open what *folder* holds.

        *ask_canary* starts a canary run soon, and returns whether it will; *pin_canary* takes what canaries give now as their
        fingerprint, once a change of the model was accepted.  *history* holds the windows that are to come, opened for reading
        by whoever closes it; None: the folder's own, to which they are added.

        Raises:
            HeadwatchError: A file cannot be opened or read.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._config = config
        self._ask_canary, self._pin_canary = ask_canary, pin_canary
        self._owns_history = history is None
        self.history = History(folder / HISTORY, config.drift.history_bytes) if history is None else history
        self._keeper = Keeper(folder / DRIFT_STATE)
        self.engine = DriftEngine(config.drift, config.window.seconds, self._keeper, self.history)
        self.book = Book(
            folder / FILE_NAME, now, routes=routes_of(config.incident), reopen_seconds=config.incident.reopen_seconds
        )
        before = self.engine.window
        self._recent = Recent(self.history.read(max(before - WINDOWS, 0), before), self.engine.usual)
        self._held: tuple[DriftEvent, int] | None = None
        """An event that waits for a canary run, and the last window that it waits for."""
        self._ruled = 0

    def close(self) -> None:
        """Close the files."""
        self.book.close()
        self._keeper.close()
        if self._owns_history:
            self.history.close()

    def catch_up(self) -> tuple[Seen, ...]:
        """Take the windows that were kept before a kill and not saved."""
        return tuple(self.take(window) for window in tuple(self.engine.missed()))

    def take(self, window: ObservedWindow) -> Seen:
        """Take the next window; one that is late or comes twice changes nothing.

        Raises:
            HeadwatchError: The window, an incident or the state cannot be kept.
        """
        if window.number <= self.engine.window:
            return Seen(self.engine.step(window).status, None, ())
        changes = [*self._obey(window)]
        step = self.engine.step(window)
        self._recent.add(window)
        changes += self._judge(step.event, window)
        if step.in_shadow is not None:  # at once: no canary is asked for what pages nobody
            changes.append(self._open(step.in_shadow, window))
        changes += self._certain(window)
        changes += self._judge_again(window)
        changes += self._close(window)
        self.engine.freeze(on=any(map(_freezes, self.book.open_incidents())))
        if self._held is None:
            self.engine.save()
        return Seen(step.status, step.event, tuple(changes))

    def _judge(self, event: DriftEvent | None, window: ObservedWindow) -> Iterable[Change]:
        """Open what detection has found, now or once a canary run tells more.

        One event waits at a time: a cause that lasts is found again and again, and must not wait for itself.
        """
        if self._held is not None:
            held, until = self._held
            if event is not None or window.number >= until or self._younger_canary(held):
                self._held = None
                yield self._open(held, window)
        if event is None:
            return
        if self._waits(event):
            self._held = event, window.number + HOLD_WINDOWS
        else:
            yield self._open(event, window)

    def _waits(self, event: DriftEvent) -> bool:
        """Return whether a canary run that is younger than *event* is to come."""
        return self._recent.canary() is not None and not self._younger_canary(event) and self._ask_canary()

    def _younger_canary(self, event: DriftEvent) -> bool:
        run = self._recent.canary()
        return run is not None and run.time_ns >= event.since_ns

    def _certain(self, window: ObservedWindow) -> Iterable[Change]:
        """Open what needs no evidence that adds up, where no incident shows it already."""
        known = {
            (one.kind, one.name)
            for incident in self.book.open_incidents()
            for event in (incident.event, *self.book.events(incident.id))
            for one in event.evidence
        }
        ruled = [one for one in self.book.resolved_since(window.end_ns - _SETTLED_NS) if one.ruling in _SETTLED]
        if self._held is not None:
            known |= {("traffic", one.name) for one in self._recent.asked()}  # a page is about to weigh it
        for found in (self._recent.failed_canaries(), self._recent.faults(), self._recent.asked()):
            new = tuple(one for one in found if (one.kind, one.name) not in known and not _settled(one, ruled))
            if new:
                yield self._open(self._event(new, window), window)

    def _event(self, evidence: tuple[Evidence, ...], window: ObservedWindow) -> DriftEvent:
        since = min(one.since_ns for one in evidence)
        routes = {one.route for one in evidence}
        windows = [one for one in self._recent.windows if one.end_ns > since] or [window]
        nominal = self._config.window.seconds
        lasted_ns = sum(one.end_ns - one.start_ns for one in windows)
        return DriftEvent(
            time_ns=window.end_ns, since_ns=since, model=evidence[0].model, route=routes.pop() if len(routes) == 1 else "",
            evidence=evidence, log10_evidence=0.0, interval_windows=self.engine.interval,
            window_seconds=lasted_ns / 1e9 / len(windows) if closed_by_count(window, nominal) else nominal,
            windows_since=len(windows),
        )  # fmt: skip

    def _case(self, event: DriftEvent) -> Case:
        return Case(
            event=event, canary=self._recent.canary(), telemetry=self._recent.faults_since(event.since_ns),
            traffic=self._recent.asked_since(event.since_ns),
            deploys=tuple(self.book.calendar.deploys(event.since_ns - _NEAR_NS, event.time_ns + 1)),
        )  # fmt: skip

    def _open(self, event: DriftEvent, window: ObservedWindow) -> Change:
        case = self._case(event)
        exhibits = exhibits_of(event, self._recent.windows, canary=case.canary, deploys=case.deploys)
        change = self.book.open(event, triage(case), exhibits, window.end_ns, shadow=self._config.drift.shadow)
        if change.rebase and not event.shadow_families:
            self._rebase(event)
        return change

    def _judge_again(self, window: ObservedWindow) -> Iterable[Change]:
        """Give incidents that nothing explained another verdict, where a canary run has come in since."""
        if not window.canaries:
            return
        for incident in self.book.open_incidents():
            if incident.verdict.cause == UNTOLD:
                change = self.book.reclassify(incident.id, triage(self._case(incident.event)), "a canary run came in since")
                if change.action != "unchanged":
                    yield change

    def _close(self, window: ObservedWindow) -> Iterable[Change]:
        """Resolve the incidents of which nothing is left."""
        wanted = self._config.drift.resolve_windows
        for incident in self.book.open_incidents():
            events = tuple(self.book.events(incident.id)) or (incident.event,)
            if window.end_ns > max(event.time_ns for event in events) and all(
                self._recent.over(event, wanted) and (_all_certain(event) or self.engine.calm(event)) for event in events
            ):
                yield self.book.auto_resolve(incident.id, window.end_ns)

    def _obey(self, window: ObservedWindow) -> Iterable[Change]:
        """Do what people have ruled since: learn anew after a known change, learn from the windows of a false page.

        A known change that is acknowledged is over once it is the new normal: nothing of it is left against that, and an
        incident that stayed open would keep it from being learned, and take in what changes next.
        """
        for entry in self.book.changes(self._ruled):
            self._ruled = entry.number
            if entry.what not in _RULED:
                continue
            incident = self.book.get(entry.incident)
            if incident.ruling == "known_change":
                self._rebase(incident.event)
                if incident.state != "resolved":
                    yield self.book.auto_resolve(incident.id, window.end_ns, "the new normal from where it began")
            elif incident.ruling == "false_page":
                self.engine.pardon(incident.event)

    def _rebase(self, event: DriftEvent) -> None:
        """Take what began with *event* as the new normal, unless that was done already."""
        numbers = self.history.between(event.since_ns, event.time_ns)
        if numbers and numbers[0] > self.engine.normal_since:
            self.engine.rebase(numbers[0])
            if any(one.kind == "canary" for one in event.evidence):
                self._pin_canary()


def _freezes(incident: Incident) -> bool:
    """Return whether nothing is learned while *incident* is open: whether what it shows must not become normal.

    Another mix of questions is no fault, and may be there to stay: baselines that waited for its end would never learn it.
    What a family in shadow finds changes nothing.
    """
    return incident.verdict.drift_class != "traffic" and not incident.event.shadow_families


def _settled(evidence: Evidence, ruled: Iterable[Incident]) -> bool:
    """Return whether *evidence* is what an incident of *ruled* showed, and has not been away since."""
    return any(
        (one.kind, one.name) == (evidence.kind, evidence.name) and evidence.since_ns <= incident.event.time_ns
        for incident in ruled
        for one in incident.event.evidence
    )


def _all_certain(event: DriftEvent) -> bool:
    return all(one.kind in _CERTAIN for one in event.evidence)
