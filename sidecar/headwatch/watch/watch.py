"""One window after another: does anything page, what kind of thing is it, and is what was paged over?

Guarantees, at a kill at any instant too: each window is kept, stepped, told of and saved, in this order, and the state of
detection is saved last.  A window that was kept and not saved is stepped again at the next start, makes the same event, and the
book knows it already.  So an incident is opened once for one cause, and none is lost.

An event that heads or signals made is judged with a canary run that is younger than the change, where canaries are sent: it
waits for one, for :data:`HOLD_WINDOWS` at most.  Nothing is saved while it waits.  What it cannot tell from traffic is judged
again with the next run, and as if no canaries were sent once they have not run for :data:`OVERDUE_INTERVALS`.

What was kept quiet (a silence, shadow mode) and is still there pages when nothing keeps it quiet any more.  What a person has
ruled to be no news is none for as long as it goes on.

Cost: that of :mod:`headwatch.drift.engine`, and one SQLite transaction a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.drift.engine import DriftEngine
from headwatch.drift.keeper import Keeper
from headwatch.errors import CommandError
from headwatch.findings import Case, DriftEvent
from headwatch.history.file import History
from headwatch.incident.book import Book, event_id
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
    from headwatch.findings import CanaryExhibit, DriftStatus, Evidence, Incident
    from headwatch.incident.book import Change
    from headwatch.observed import ObservedWindow

HOLD_WINDOWS = 2
OVERDUE_INTERVALS = 3
"""Intervals without a run after which canaries do not run, as the alert rules have it."""
_SETTLED = frozenset({"known_change", "false_page"})
"""Rulings after which what goes on as it was is no news."""
_RULED = frozenset({"acknowledged", "resolved", "ruled"})
"""Entries of the audit that may bring a ruling."""
_DAY_NS = 86_400 * 10**9
_SETTLED_NS = 7 * _DAY_NS
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
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            problem = f"cannot make the folder of drift detection {folder}: {error.strerror} (drift.folder)"
            raise CommandError(problem) from error
        self._config = config
        self._ask_canary, self._pin_canary, self._now = ask_canary, pin_canary, now
        self._owns_history = history is None
        self.history = history if history is not None else History(
            folder / HISTORY, config.drift.history_bytes, max_days=config.drift.history_days
        )
        self._keeper = Keeper(folder / DRIFT_STATE)
        self.engine = DriftEngine(config.drift, config.window.seconds, self._keeper, self.history)
        self.book = Book(
            folder / FILE_NAME, now, routes=routes_of(config.incident), reopen_seconds=config.incident.reopen_seconds
        )
        self._recent = self._last_windows(self.engine.window)
        self._held: tuple[DriftEvent, int] | None = None
        """An event that waits for a canary run, and the last window that it waits for."""
        self._ruled = 0
        self._accepted: set[str] = set()
        """Events that are the new normal: those that this life has seen to."""

    def close(self) -> None:
        """Close the files."""
        self.book.close()
        self._keeper.close()
        if self._owns_history:
            self.history.close()

    def _last_windows(self, last: int) -> Recent:
        """Return what was known after window *last*, the last one that was saved."""
        numbers = self.history.numbers(0, last)[-WINDOWS:]
        windows = self.history.read(numbers[0], last) if numbers else ()
        return Recent(windows, self.engine.usual, self._keeper.facts().get("lasting"))

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
        overdue = self._overdue()
        self._recent.add(window)
        changes += self._judge(step.event, window)
        if step.in_shadow is not None:  # at once: no canary is asked for what pages nobody
            changes.append(self._open(step.in_shadow, window))
        changes += self._certain(window)
        changes += self._judge_again(window, overdue=self._overdue() and not overdue)
        changes += self._wake()
        changes += self._close(window)
        now_ns = min(self._now(), *(one.end_ns for one in self._recent.windows[-2:]))  # one wrong clock must not cost them
        self.book.forget_resolved(now_ns - self._config.store.incident_ttl_days * _DAY_NS)
        self.engine.freeze(on=any(map(_freezes, self.book.open_incidents())))
        if self._held is None:
            self.engine.save({"lasting": self._recent.lasting})
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

    def _overdue(self) -> bool:
        """Return whether canaries do not run: none of the last windows has one, or it is too long ago."""
        limit_ns = OVERDUE_INTERVALS * self._config.canary.interval_seconds * 1e9
        return self._recent.canary() is None or self._recent.unheard_ns() > limit_ns

    def _canary(self) -> CanaryExhibit | None:
        """Return the run that triage is to weigh: not what was ruled to be no news, nor one that passed too long ago."""
        run = self._recent.canary(self._settled_prompts())
        return None if run is not None and not run.failed and self._overdue() else run

    def _settled_prompts(self) -> set[str]:
        return {one.name for one in self._recent.failed_canaries() if self._settled(one)}

    def _settled(self, evidence: Evidence) -> bool:
        """Return whether *evidence* is what an incident that was ruled to be no news has shown, and never went away since."""
        since_ns = self._recent.since(evidence)
        return any(
            (one.kind, one.name) == (evidence.kind, evidence.name)
            for incident in self.book.resolved_since(self._recent.windows[-1].end_ns - _SETTLED_NS)
            if incident.ruling in _SETTLED and since_ns <= incident.resolved_ns
            for event in (incident.event, *self.book.events(incident.id))
            for one in event.evidence
        )

    def _certain(self, window: ObservedWindow) -> Iterable[Change]:
        """Open what needs no evidence that adds up, where no incident shows it already."""
        known = {
            (one.kind, one.name)
            for incident in self.book.open_incidents()
            for event in (incident.event, *self.book.events(incident.id))
            for one in event.evidence
        }
        if self._held is not None:
            known |= {("traffic", one.name) for one in self._recent.asked()}  # a page is about to weigh it
        for found in (self._recent.failed_canaries(), self._recent.faults(), self._recent.asked()):
            new = tuple(one for one in found if (one.kind, one.name) not in known and not self._settled(one))
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
            event=event, canary=self._canary(), telemetry=self._recent.faults_since(event.since_ns),
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

    def _judge_again(self, window: ObservedWindow, *, overdue: bool) -> Iterable[Change]:
        """Give incidents that nothing explained another verdict, where a canary run has come in since.

        *overdue*: from this window on canaries do not run, so that none will come.
        """
        settled = self._settled_prompts()
        if overdue:
            why = f"canaries have not run for {OVERDUE_INTERVALS} intervals"
        elif any(run.prompt not in settled for run in window.canaries):
            why = "a canary run came in since"
        else:
            return
        for incident in self.book.open_incidents():
            if incident.verdict.cause == UNTOLD:
                verdict = triage(self._case(incident.event))
                change = self.book.reclassify(incident.id, verdict, why, shadow=self._config.drift.shadow)
                if change.rebase:
                    self._rebase(incident.event)
                if change.action != "unchanged":
                    yield change

    def _wake(self) -> Iterable[Change]:
        """Page what was kept quiet and is still there, once nothing keeps it quiet.

        Evidence that adds up is found again and pages then; what is certain is found once, so it is looked for here.
        """
        there = {
            (one.kind, one.name)
            for found in (self._recent.failed_canaries(), self._recent.faults(), self._recent.asked())
            for one in found
            if one.kind != "traffic" or one.name.startswith("template:")  # other traffic wakes nobody
        }
        for incident in self.book.open_incidents():
            if incident.silenced and any(
                (one.kind, one.name) in there
                for event in (incident.event, *self.book.events(incident.id))
                for one in event.evidence
            ):
                change = self.book.wake(incident.id, shadow=self._config.drift.shadow)
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
        """Take what began with *event* as the new normal, unless that was done already; canaries too, where they still depart.

        Said once in a life: it is a change that was ruled, and what is saved tells after a kill whether it was done.
        """
        if event_id(event) in self._accepted:
            return
        self._accepted.add(event_id(event))
        numbers = self.history.between(event.since_ns, event.time_ns) or self.history.between(0, event.time_ns)[-1:]
        anew = bool(numbers) and numbers[0] > self.engine.normal_since
        if anew:
            self.engine.rebase(numbers[0])
        failing = {one.name for one in self._recent.failed_canaries() if self._recent.since(one) <= event.time_ns}
        if any(one.kind == "canary" and (anew or one.name in failing) for one in event.evidence):
            self._pin_canary()


def _freezes(incident: Incident) -> bool:
    """Return whether nothing is learned while *incident* is open: whether what it shows must not become normal.

    Another mix of questions is no fault, and may be there to stay: baselines that waited for its end would never learn it.
    What a family in shadow finds changes nothing.
    """
    return incident.verdict.drift_class != "traffic" and not incident.event.shadow_families


def _all_certain(event: DriftEvent) -> bool:
    return all(one.kind in _CERTAIN for one in event.evidence)
