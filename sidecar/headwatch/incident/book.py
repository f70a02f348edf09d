"""The book of incidents: opened once for one cause, told of once, and closed by a person or when the evidence is gone.

Guarantees: an event that is handed in twice (after a kill, or late) changes nothing the second time; an incident and what is to
be sent of it are written together; what a page has shown is never changed afterwards, later evidence is kept beside it; every
change says who made it and when.  The sidecar and the commands may have the file open at the same time.

Quiet by design: evidence of a cause that is known is added to its incident and sends nothing, unless the verdict changes.  What
keeps a page from being sent (shadow mode, a silence, a maintenance window) is asked whenever one would be: at the opening, when
evidence is added, when the verdict changes; and :meth:`Book.wake` asks again of an incident that was kept quiet.  A cause that
comes back within ``reopen_seconds`` reopens its incident.  What resolves by itself does so only when drift detection has found
the effects back inside for its number of windows (``[drift] resolve_windows``).
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

import msgspec

from headwatch.errors import IncidentError
from headwatch.findings import CLASSES, DeployEvent, DriftEvent, Exhibits, Incident, Ruling, Verdict
from headwatch.incident.calendar import Calendar
from headwatch.incident.ledger import Ledger
from headwatch.incident.outbox import enqueue, note_change
from headwatch.incident.sameness import belongs_to, same_cause
from headwatch.incident.severity import louder, pages, severity
from headwatch.incident.shelf import EVENTS_KEPT, Shelf
from headwatch.incident.silences import MAX_PLANNED_SECONDS, planned_by

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

HEADWATCH = "headwatch"
"""Who changed an incident, where no person did."""
Action = Literal["opened", "merged", "reopened", "silenced", "known_change", "unchanged", "updated", "acknowledged", "resolved"]
_SURE = 0.5
_OVER = "silence is over and the evidence is not"
_EXPLAINS_ALL = frozenset({"telemetry", "model"})


class Change(msgspec.Struct, frozen=True):
    """What came of a call."""

    action: Action
    incident: Incident
    rebase: bool = False
    """Whether the change was planned or is accepted, so that baselines are to be learned anew from where it began."""


class Book(Shelf):
    """The incidents of one file.  Threads of a process may share it."""

    def __init__(
        self,
        path: Path,
        now: Callable[[], int] = time.time_ns,
        *,
        routes: tuple[str, ...] = (),
        reopen_seconds: float = 3600.0,
    ) -> None:
        """Open or make the file at *path*; *routes* are told of changes, the first one pages: see outbox.routes_of.

        Raises:
            IncidentError: The file cannot be used.
        """
        super().__init__(Ledger(path))
        self._now = now
        self._routes = routes
        self._reopen_ns = int(reopen_seconds * 1e9)
        self.calendar = Calendar(self._ledger, now)

    def close(self) -> None:
        """Close the file."""
        self._ledger.close()

    def open(
        self, event: DriftEvent, verdict: Verdict, exhibits: Exhibits, now_ns: int | None = None, *, shadow: bool = False
    ) -> Change:
        """Record *event*: in an incident of its own, or in the one whose cause it is of.

        *shadow*, and of what families in shadow found: nobody is told.
        """
        now_ns = self._now() if now_ns is None else now_ns
        with self._ledger.change() as file:
            known = file.execute("SELECT incident FROM event WHERE id = ?", (event_id(event),)).fetchone()
            if known is not None:
                there = self.get(known[0])
                return Change("unchanged", there, rebase=there.ruling == "known_change")
            planned = self._planned(event, verdict)
            for incident in self.open_incidents():
                told = incident.paged or planned is None  # what is planned is kept apart from what nobody was told of
                if told and belongs_to(incident, self.events(incident.id), event, verdict):
                    return self._merge(file, incident, event, verdict, exhibits, now_ns, shadow=shadow)
            silent = self._quiet(event, verdict, shadow=shadow)
            if planned is None:
                for incident in self.resolved_since(now_ns - self._reopen_ns):
                    if incident.ruling != "known_change" and same_cause(incident, event, verdict):
                        return self._reopen(file, incident, event, now_ns, silent)
            return self._new(file, event, verdict, exhibits, now_ns, silent, planned)

    def reclassify(self, id: str, verdict: Verdict, note: str = "", *, shadow: bool = False) -> Change:  # noqa: A002
        """Replace the verdict of a live incident, for example when a canary run has come in since; tell the routes.

        What nobody was told of, and now shows to be planned, is closed as a known change.

        Raises:
            IncidentError: There is no such incident, or it is resolved.
        """
        with self._ledger.change() as file:
            incident = self.get(id)
            if incident.state == "resolved":
                raise IncidentError("state", f"incident {incident.id} is resolved")
            if (verdict.drift_class, verdict.cause) == (incident.verdict.drift_class, incident.verdict.cause):
                return Change("unchanged", incident)
            now_ns = _after(incident, self._now())
            untold = pages(verdict) and not incident.paged and not incident.event.shadow_families
            planned = self._planned(incident.event, verdict) if untold else None
            if planned is not None:
                level = severity(verdict, incident.event)
                incident = msgspec.structs.replace(incident, verdict=verdict, severity=level, updated_ns=now_ns)
                incident = _as_planned(incident, planned)
                self._keep(file, incident, HEADWATCH, "resolved", incident.silenced_why)
                enqueue(file, incident, "resolved", self._routes, page=False)
                return Change("known_change", incident, rebase=True)
            if pages(verdict):
                incident = _quietened(incident, self._quiet(incident.event, verdict, shadow=shadow))
            return self._judged(file, incident, verdict, incident.event, now_ns, note)

    def wake(self, id: str, *, shadow: bool = False) -> Change:  # noqa: A002
        """Page an incident whose evidence is still there once nothing keeps it quiet any more.

        Raises:
            IncidentError: There is no such incident.
        """
        with self._ledger.change() as file:
            incident = self.get(id)
            live = incident.silenced and incident.state != "resolved"
            if not live or self._quiet(incident.event, incident.verdict, shadow=shadow):
                return Change("unchanged", incident)
            incident = msgspec.structs.replace(_quietened(incident, ""), updated_ns=_after(incident, self._now()))
            return Change("updated", self._tell(file, incident, incident.verdict, _OVER))

    def ack(self, id: str, who: str, note: str = "", ruling: Ruling | None = None) -> Incident:  # noqa: A002
        """Say that *who* has seen an incident and looks after it, and what it was where that is known already.

        Raises:
            IncidentError: There is no such incident, or it is resolved.
        """
        now_ns = self._now()
        with self._ledger.change() as file:
            incident = self.get(id)
            now_ns = _after(incident, now_ns)
            if incident.state == "resolved":
                raise IncidentError("state", f"incident {incident.id} is resolved already")
            incident = msgspec.structs.replace(
                incident, state="acknowledged", acknowledged_ns=now_ns, acknowledged_by=who, updated_ns=now_ns,
                ruling=ruling or incident.ruling, note=note or incident.note,
            )  # fmt: skip
            self._keep(file, incident, who, "acknowledged", _ruled(ruling, note))
            enqueue(file, incident, "updated", self._routes, page=incident.paged)
        return incident

    def resolve(self, id: str, who: str, ruling: Ruling, note: str = "") -> Incident:  # noqa: A002
        """Close an incident with what it was, whatever was said before; one that has resolved by itself gets its ruling.

        Raises:
            IncidentError: There is no such incident.
        """
        now_ns = self._now()
        with self._ledger.change() as file:
            incident = self.get(id)
            now_ns = _after(incident, now_ns)
            ended = incident.state == "resolved"
            incident = msgspec.structs.replace(
                incident, state="resolved", ruling=ruling, updated_ns=now_ns, note=note or incident.note,
                resolved_ns=incident.resolved_ns if ended else now_ns, resolved_by=incident.resolved_by if ended else who,
            )  # fmt: skip
            self._keep(file, incident, who, "ruled" if ended else "resolved", _ruled(ruling, note))
            if not ended:
                enqueue(file, incident, "resolved", self._routes, page=incident.paged)
        return incident

    def auto_resolve(self, id: str, now_ns: int | None = None, why: str = "effects are back inside") -> Change:  # noqa: A002
        """Close an incident of which nothing is left; the ruling is left to a person.

        Raises:
            IncidentError: There is no such incident.
        """
        now_ns = self._now() if now_ns is None else now_ns
        with self._ledger.change() as file:
            incident = self.get(id)
            now_ns = _after(incident, now_ns)
            if incident.state == "resolved":
                return Change("unchanged", incident)
            incident = msgspec.structs.replace(
                incident, state="resolved", resolved_ns=now_ns, resolved_by=HEADWATCH, updated_ns=now_ns
            )
            self._keep(file, incident, HEADWATCH, "resolved", why)
            enqueue(file, incident, "resolved", self._routes, page=incident.paged)
        return Change("resolved", incident)

    def _new(
        self, file: sqlite3.Connection, event: DriftEvent, verdict: Verdict, exhibits: Exhibits, now_ns: int, silent: str,
        planned: DeployEvent | None,
    ) -> Change:  # fmt: skip
        page = pages(verdict) and not silent and planned is None
        incident = Incident(
            id=event_id(event), state="open", severity=severity(verdict, event), opened_ns=now_ns, updated_ns=now_ns,
            event=event, verdict=verdict, exhibits=exhibits, silenced=bool(silent), silenced_why=silent, paged=page,
        )  # fmt: skip
        if planned is not None:
            incident = _as_planned(incident, planned)
        self._keep(file, incident, HEADWATCH, "opened", silent or verdict.sentence)
        if planned is not None and not event.shadow_families:  # a line of its own: the new normal is learned after a kill, too
            note_change(file, incident.id, now_ns, HEADWATCH, "resolved", incident.silenced_why)
        self._add_event(file, incident, event)
        enqueue(file, incident, "opened" if planned is None else "resolved", self._routes, page=page)
        self._prune(file)
        if planned is not None:
            return Change("known_change", incident, rebase=True)
        return Change("silenced" if silent else "opened", incident)

    def _merge(
        self, file: sqlite3.Connection, incident: Incident, event: DriftEvent, verdict: Verdict, exhibits: Exhibits,
        now_ns: int, *, shadow: bool,
    ) -> Change:  # fmt: skip
        """Add *event* to *incident*; its verdict takes over where it explains more, and a silence that has ended is over.

        Where nobody was to be told of it until now, the page shows what *event* found: it is frozen when it matters.
        """
        self._add_event(file, incident, event)
        now_ns = _after(incident, now_ns)
        takes_over = _explains_more(verdict, incident.verdict)
        told = verdict if takes_over else incident.verdict
        silent = self._quiet(event, told, shadow=shadow)
        woken = incident.silenced and not silent
        incident = msgspec.structs.replace(incident, updated_ns=now_ns)
        if woken or pages(told):
            incident = _quietened(incident, silent)
        self._keep(file, incident, HEADWATCH, "merged", verdict.sentence)
        if takes_over:
            if pages(verdict) and not pages(incident.verdict):
                incident = msgspec.structs.replace(incident, event=event, exhibits=exhibits)
            return self._judged(file, incident, verdict, event, now_ns, "with later evidence")
        if woken:
            return Change("updated", self._tell(file, incident, incident.verdict, _OVER))
        return Change("merged", incident)

    def _judged(
        self, file: sqlite3.Connection, incident: Incident, verdict: Verdict, event: DriftEvent, now_ns: int, note: str
    ) -> Change:
        """Judge anew.  A ruling speaks of the class that was shown: for another it is wanted again."""
        ruling = incident.ruling
        if verdict.drift_class != incident.verdict.drift_class and ruling is not None:
            note, ruling = f"{note}; it was ruled {ruling} as {incident.verdict.drift_class}, which counts no more", None
        incident = msgspec.structs.replace(
            incident, verdict=verdict, severity=louder(severity(verdict, event), severity(verdict, incident.event)),
            ruling=ruling, updated_ns=now_ns,
        )  # fmt: skip
        return Change("updated", self._tell(file, incident, verdict, f"{verdict.drift_class}/{verdict.cause}: {note}"))

    def _tell(self, file: sqlite3.Connection, incident: Incident, verdict: Verdict, note: str) -> Incident:
        """Keep what was updated; a route that pages and has not heard of it yet hears that it opened."""
        begins = not incident.paged and pages(verdict) and not incident.silenced
        incident = msgspec.structs.replace(incident, paged=incident.paged or begins)
        self._keep(file, incident, HEADWATCH, "updated", note)
        enqueue(file, incident, "updated", self._routes, page=incident.paged, begins=begins)
        return incident

    def _reopen(
        self, file: sqlite3.Connection, incident: Incident, event: DriftEvent, now_ns: int, silent: str
    ) -> Change:
        page = pages(incident.verdict) and not silent
        now_ns = _after(incident, now_ns)
        incident = msgspec.structs.replace(
            incident, state="open", updated_ns=now_ns, resolved_ns=0, resolved_by="", ruling=None,
            reopened=incident.reopened + 1, silenced=bool(silent), silenced_why=silent, paged=page,
        )  # fmt: skip
        self._add_event(file, incident, event)
        self._keep(file, incident, HEADWATCH, "reopened", silent)
        enqueue(file, incident, "opened", self._routes, page=page)
        return Change("reopened", incident)

    def _quiet(self, event: DriftEvent, verdict: Verdict, *, shadow: bool) -> str:
        """Return why a page of *event* would be kept from being sent now; empty where it would not."""
        return "shadow mode" if shadow else _in_shadow(event) or self._silence(event, verdict)

    def _silence(self, event: DriftEvent, verdict: Verdict) -> str:
        for one in self.calendar.silences():
            if one.matches(event, verdict, self._now()):
                return f"silence {one.number} by {one.who}" + (f": {one.why}" if one.why else "")
        return ""

    def _planned(self, event: DriftEvent, verdict: Verdict) -> DeployEvent | None:
        deploys = self.calendar.deploys(event.since_ns - int(MAX_PLANNED_SECONDS * 1e9), event.time_ns + 1)
        return planned_by(event, verdict, deploys)

    def _keep(self, file: sqlite3.Connection, incident: Incident, who: str, what: str, note: str) -> None:
        self._put(file, incident)
        note_change(file, incident.id, incident.updated_ns, who, what, note)

    def _add_event(self, file: sqlite3.Connection, incident: Incident, event: DriftEvent) -> None:
        kept = file.execute("SELECT count(*) FROM event WHERE incident = ?", (incident.id,)).fetchone()[0]
        body = msgspec.json.encode(event) if kept < EVENTS_KEPT else b""
        file.execute("INSERT INTO event VALUES (?, ?, ?, ?)", (event_id(event), incident.id, event.time_ns, body))


def _after(incident: Incident, now_ns: int) -> int:
    """Return *now_ns*, or a time just after the last change of *incident*.

    Detection goes by the ends of windows and people by the clock on the wall, which is ahead; what keeps an incident by the
    time of its last change must not take an earlier one for the latest.
    """
    return max(now_ns, incident.updated_ns + 1)


def _quietened(incident: Incident, silent: str) -> Incident:
    """Return *incident* with what keeps it quiet now, if anything does; one that has paged stays one that has."""
    return incident if incident.paged else msgspec.structs.replace(incident, silenced=bool(silent), silenced_why=silent)


def _as_planned(incident: Incident, planned: DeployEvent) -> Incident:
    """Return *incident* closed with its last change, as what *planned* was to bring."""
    return msgspec.structs.replace(
        incident, state="resolved", resolved_ns=incident.updated_ns, resolved_by=HEADWATCH, ruling="known_change",
        silenced=True, silenced_why=f"planned: {planned.title}",
    )  # fmt: skip


def _ruled(ruling: Ruling | None, note: str) -> str:
    """Return what the audit says of a ruling and its note."""
    return ": ".join(part for part in (ruling, note) if part)


def event_id(event: DriftEvent) -> str:
    """Return a name of *event* that a replay of the same windows gives it again: by model, route, window, kinds and clock."""
    kinds = ",".join(sorted({one.kind for one in event.evidence}))
    clock = "|shadow" if event.shadow_families else ""
    named = f"{event.model}|{event.route}|{event.time_ns}|{kinds}{clock}"
    return "hw-" + blake2b(named.encode(), digest_size=5).hexdigest()


def _in_shadow(event: DriftEvent) -> str:
    return f"in shadow: {', '.join(event.shadow_families)}" if event.shadow_families else ""


def _explains_more(verdict: Verdict, than: Verdict) -> bool:
    """Return whether *verdict*, on later evidence alone, is to replace *than*.

    Faults of telemetry and changes of the model explain whatever was found before.  Anything else must be surer: what comes
    later sees less, since the pager began anew.
    """
    if verdict.drift_class == than.drift_class:
        return verdict.cause != than.cause and verdict.confidence > than.confidence
    if verdict.confidence < _SURE:
        return False
    if than.confidence < _SURE:
        return True
    earlier = CLASSES.index(verdict.drift_class) < CLASSES.index(than.drift_class)
    surer = verdict.drift_class in _EXPLAINS_ALL or than.drift_class == "traffic" or verdict.confidence > than.confidence
    return earlier and surer
