"""Incidents as they stand in the file: found, listed, put back, counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headwatch.errors import IncidentError
from headwatch.findings import CLASSES, DriftEvent, Incident
from headwatch.incident.ledger import MAX_INCIDENTS

if TYPE_CHECKING:
    import sqlite3
    from typing import Literal

    from headwatch.incident.ledger import Ledger

EVENTS_KEPT = 200
"""Events of one incident that are kept whole; of further ones only that they were, so that a replay finds them known."""


Incidents = list[Incident]
Events = list[DriftEvent]
"""Names for lists: within :class:`Shelf` the word is a method."""


class AuditEntry(msgspec.Struct, frozen=True):
    """One change of an incident."""

    number: int
    """Ascending over all incidents: what a poller remembers."""
    incident: str
    time_ns: int
    who: str
    what: str
    """``opened merged updated reopened acknowledged resolved ruled paged mirrored dropped``."""
    note: str


Audit = list[AuditEntry]


class Shelf:
    """Reads and writes incidents in a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def get(self, id: str) -> Incident:  # noqa: A002 - the incident's own word
        """Return the incident with *id*, or with an id that begins so; ``hw-`` may be left out.

        Raises:
            IncidentError: There is none, or there are several.
        """
        start = id if id.startswith("hw-") else f"hw-{id}"
        rows = self._ledger.read(
            "SELECT body FROM incident WHERE substr(id, 1, ?) = ? ORDER BY opened_ns DESC LIMIT 2", (len(start), start)
        )
        if len(rows) != 1 or not id:
            few = "no incident" if not rows else "more than one incident"
            raise IncidentError("unknown", f"there is {few} {id!r}; `headwatch incident list` shows those that there are")
        return _incident(rows[0])

    def list(self, state: str | None = None, limit: int = 100) -> Incidents:
        """Return the latest incidents, newest first: all, or those of a *state*; ``live``: those that are not resolved."""
        where, values = {
            None: ("1", ()),
            "live": ("state != 'resolved'", ()),
        }.get(state, ("state = ?", (state,)))
        rows = self._ledger.read(
            f"SELECT body FROM incident WHERE {where} ORDER BY opened_ns DESC, id LIMIT ?",  # noqa: S608 - three constants
            (*values, limit),
        )
        return [_incident(row) for row in rows]

    def open_incidents(self) -> Incidents:
        """Return every incident that is not resolved, oldest first."""
        rows = self._ledger.read("SELECT body FROM incident WHERE state != 'resolved' ORDER BY opened_ns, id")
        return [_incident(row) for row in rows]

    def resolved_since(self, time_ns: int) -> Incidents:
        """Return those resolved at *time_ns* or later, the latest first."""
        rows = self._ledger.read(
            "SELECT body FROM incident WHERE state = 'resolved' AND resolved_ns >= ? ORDER BY resolved_ns DESC", (time_ns,)
        )
        return [_incident(row) for row in rows]

    def events(self, id: str) -> Events:  # noqa: A002
        """Return what was found of an incident, the event that opened it first; the first ``EVENTS_KEPT`` of them."""
        rows = self._ledger.read("SELECT body FROM event WHERE incident = ? AND body != x'' ORDER BY time_ns", (id,))
        return [msgspec.json.decode(row["body"], type=DriftEvent) for row in rows]

    def history(self, id: str) -> Audit:  # noqa: A002
        """Return every change of an incident, oldest first."""
        return self._audit("incident = ?", id)

    def changes(self, after: int) -> Audit:
        """Return the changes of all incidents with a number above *after*, in order: what somebody else did since."""
        return self._audit("number > ?", after)

    def paged(self) -> dict[str, int]:
        """Return how many incidents of each class have paged at any time."""
        found = dict.fromkeys(CLASSES, 0)
        for row in self._ledger.read("SELECT drift_class, count(*) FROM incident WHERE paged GROUP BY drift_class"):
            found[row[0]] = row[1]
        return {str(name): count for name, count in found.items()}

    def precision(self) -> dict[str, tuple[int, int]]:
        """Return for each class how many of its pages were ruled true, and how many were ruled at all.

        The second counts known changes as well: they were changes, and nobody needed to be woken for them.
        """
        rows = self._ledger.read(
            "SELECT drift_class, sum(ruling = 'true'), count(*) FROM incident WHERE paged AND ruling != '' GROUP BY drift_class"
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def _put(self, file: sqlite3.Connection, incident: Incident) -> None:
        """Write *incident* as it is now, within the caller's change."""
        file.execute(
            "INSERT INTO incident (id, state, drift_class, model, opened_ns, updated_ns, resolved_ns, paged, ruling, body) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO UPDATE SET "
            "state = ?2, drift_class = ?3, updated_ns = ?6, resolved_ns = ?7, paged = max(paged, ?8), ruling = ?9, body = ?10",
            (
                incident.id, incident.state, incident.verdict.drift_class, incident.event.model, incident.opened_ns,
                incident.updated_ns, incident.resolved_ns, incident.paged, incident.ruling or "", msgspec.json.encode(incident),
            ),
        )  # fmt: skip

    def forget_resolved(self, before_ns: int, most: int = 10) -> None:
        """Let *most* incidents go that were resolved before *before_ns*, the oldest first, with what was written about them.

        Raises:
            IncidentError: The file cannot be used.
        """
        chosen = "SELECT id FROM incident WHERE state = 'resolved' AND resolved_ns < ? ORDER BY resolved_ns LIMIT ?"
        values = (before_ns, most)
        if self._ledger.read(chosen, values):  # else nobody is held up
            with self._ledger.change() as file:
                _forget(file, file.execute(chosen, values).fetchall())

    def _prune(self, file: sqlite3.Connection, keep: int = MAX_INCIDENTS) -> None:
        """Let the oldest resolved incidents go, down to *keep* in all, with what was written about them."""
        over = file.execute("SELECT count(*) FROM incident").fetchone()[0] - keep
        if over <= 0:
            return
        chosen = "SELECT id FROM incident WHERE state = 'resolved' ORDER BY resolved_ns LIMIT ?"
        _forget(file, file.execute(chosen, (over,)).fetchall())

    def _audit(self, where: Literal["incident = ?", "number > ?"], value: str | int) -> Audit:
        rows = self._ledger.read(f"SELECT * FROM audit WHERE {where} ORDER BY number", (value,))  # noqa: S608 - two constants
        return [AuditEntry(*(row[name] for name in AuditEntry.__struct_fields__)) for row in rows]


def _forget(file: sqlite3.Connection, gone: list[sqlite3.Row]) -> None:
    for (id_,) in gone:
        file.execute("DELETE FROM incident WHERE id = ?", (id_,))
        file.execute("DELETE FROM audit WHERE incident = ?", (id_,))
        file.execute("DELETE FROM outbox WHERE incident = ?", (id_,))


def _incident(row: sqlite3.Row) -> Incident:
    return msgspec.json.decode(row["body"], type=Incident)
