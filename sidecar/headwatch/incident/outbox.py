"""What is to be sent of incidents: written with the change that it tells of, taken out once a route has it.

Each route (the one that pages, and the mirrors) has entries of its own, so that a mirror which is down delays no page.  An
entry stays until its sender has said ``done``, so that a kill between sending and saying so sends it again: at least once, with
the same key, by which a receiver knows it.  Entries of one incident and route leave in order: the next one is not pending while
an earlier one waits.

Bounded: beyond ``MAX_ENTRIES`` of a route the oldest make room, and the audit of their incident says so.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import msgspec

from headwatch.findings import Incident
from headwatch.incident.ledger import Ledger

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from headwatch.config import IncidentConfig

Kind = Literal["opened", "updated", "resolved"]
MAX_ENTRIES = 1000


class Entry(msgspec.Struct, frozen=True):
    """One thing to send."""

    id: int
    kind: Kind
    incident: Incident
    """As it was when the entry was written."""
    key: str
    """The same in every attempt, and after a restart."""
    route: str
    """The route that it is for, as named in the configuration."""
    page: bool
    """Whether it wakes a person; False for mirrors and for what is silenced."""
    attempts: int
    next_ns: int
    """Not to be tried again before."""


class Outbox:
    """The entries of one file of incidents.  Made for one thread; a process may have several of them on one file."""

    def __init__(self, path: Path, now: Callable[[], int] = time.time_ns) -> None:
        self._ledger = Ledger(path)
        self._now = now

    def close(self) -> None:
        """Close the file."""
        self._ledger.close()

    def pending(self, route: str | None = None, limit: int = 100) -> list[Entry]:
        """Return what is due now of *route*, None for all, oldest first; of one incident and route the oldest alone.

        A sender asks for its own route: what waits for others, *limit* entries or more, must not hide what is due for it.
        """
        rows = self._ledger.read(
            "SELECT * FROM outbox WHERE number IN (SELECT min(number) FROM outbox WHERE ?1 IS NULL OR route = ?1 "
            "GROUP BY incident, route) AND next_ns <= ?2 ORDER BY number LIMIT ?3",
            (route, self._now(), limit),
        )
        return [
            Entry(
                id=row["number"], kind=row["kind"], incident=msgspec.json.decode(row["body"], type=Incident), key=row["key"],
                route=row["route"], page=bool(row["page"]), attempts=row["attempts"], next_ns=row["next_ns"],
            )
            for row in rows
        ]  # fmt: skip

    def waiting(self) -> int:
        """Return how many entries have not been sent, due or not."""
        return int(self._ledger.read("SELECT count(*) FROM outbox")[0][0])

    def done(self, id: int) -> None:  # noqa: A002 - the entry's own word
        """Take an entry out: its route has it."""
        with self._ledger.change() as file:
            row = file.execute("SELECT incident, route, kind, page FROM outbox WHERE number = ?", (id,)).fetchone()
            if row is None:
                return
            file.execute("DELETE FROM outbox WHERE number = ?", (id,))
            what = "paged" if row["page"] else "mirrored"
            note_change(file, row["incident"], self._now(), "headwatch", what, f"{row['kind']}, to {row['route']}")

    def failed(self, id: int, error: str, next_ns: int) -> None:  # noqa: A002 - the entry's own word
        """Keep an entry for a further attempt, not before *next_ns*."""
        with self._ledger.change() as file:
            file.execute(
                "UPDATE outbox SET attempts = attempts + 1, error = ?, next_ns = ? WHERE number = ?", (error[:500], next_ns, id)
            )


def routes_of(config: IncidentConfig) -> tuple[str, ...]:
    """Return the routes that entries are written for: the one that pages (or ``""``), then the mirrors that are configured."""
    urls = {"webhook": config.webhook_url, "alertmanager": config.alertmanager_url, "grafana": config.grafana_url}
    paging = "" if config.route == "none" else config.route
    return (paging, *(route for route, url in urls.items() if url and route != paging))


def enqueue(
    file: sqlite3.Connection, incident: Incident, kind: Kind, routes: tuple[str, ...], *, page: bool, begins: bool = False
) -> None:
    """Write what is to be sent of *incident*, within the caller's change; the first of *routes* is the one that pages.

    Where nobody is to be woken (not *page*) the mirrors alone hear of it.  *begins*: to the route that pages it is news.
    """
    number = file.execute("SELECT count(*) FROM audit WHERE incident = ?", (incident.id,)).fetchone()[0]
    for place, route in enumerate(routes):
        pages = page and place == 0
        if not route or (place == 0 and not pages):
            continue
        told = "opened" if begins and place == 0 else kind
        file.execute(
            "INSERT OR IGNORE INTO outbox (key, incident, route, kind, page, body) VALUES (?, ?, ?, ?, ?, ?)",
            (f"{incident.id}-{told}-{number}-{route}", incident.id, route, told, pages, msgspec.json.encode(incident)),
        )
        _bound(file, route, incident.updated_ns)


def _bound(file: sqlite3.Connection, route: str, time_ns: int) -> None:
    over = file.execute("SELECT count(*) FROM outbox WHERE route = ?", (route,)).fetchone()[0] - MAX_ENTRIES
    if over > 0:
        for row in file.execute("SELECT * FROM outbox WHERE route = ? ORDER BY number LIMIT ?", (route, over)).fetchall():
            file.execute("DELETE FROM outbox WHERE number = ?", (row["number"],))
            note_change(file, row["incident"], time_ns, "headwatch", "dropped", f"{row['kind']}, never sent to {route}")


def note_change(file: sqlite3.Connection, incident: str, time_ns: int, who: str, what: str, note: str = "") -> None:
    """Write a line of the audit, within the caller's change."""
    file.execute(
        "INSERT INTO audit (incident, time_ns, who, what, note) VALUES (?, ?, ?, ?, ?)", (incident, time_ns, who, what, note)
    )
