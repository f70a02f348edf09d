"""What people have announced: silences, and releases with their maintenance windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.errors import IncidentError
from headwatch.findings import DeployEvent
from headwatch.incident.silences import Silence

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from headwatch.incident.ledger import Ledger

MAX_DEPLOYS = 10_000


class Calendar:
    """Silences and releases in the file of incidents."""

    def __init__(self, ledger: Ledger, now: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now = now

    def silence(
        self, seconds: float, who: str, why: str, *, drift_class: str = "", model: str = "", route: str = ""
    ) -> Silence:
        """Send no page for *seconds* from now of what matches; return the silence."""
        from_ns = self._now()
        until_ns = from_ns + int(seconds * 1e9)
        values = (drift_class, model, route, from_ns, until_ns, who, why)
        with self._ledger.change() as file:
            number = file.execute(
                "INSERT INTO silence (drift_class, model, route, from_ns, until_ns, who, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            ).lastrowid
        assert number is not None  # the key is an INTEGER PRIMARY KEY
        return Silence(number, *values)

    def end_silence(self, number: int) -> Silence:
        """End a silence now; return it.

        Raises:
            IncidentError: There is no such silence, or it has ended.
        """
        now_ns = self._now()
        with self._ledger.change() as file:
            found = file.execute("SELECT * FROM silence WHERE number = ? AND until_ns > ?", (number, now_ns)).fetchone()
            if found is None:
                raise IncidentError("unknown", f"no silence {number} is in force; `headwatch incident silence` lists them")
            file.execute("UPDATE silence SET until_ns = ? WHERE number = ?", (now_ns, number))
        return _silence(found)

    def silences(self) -> list[Silence]:
        """Return the silences that are in force or to come."""
        return [_silence(row) for row in self._ledger.read("SELECT * FROM silence WHERE until_ns > ?", (self._now(),))]

    def add_deploy(
        self, title: str, *, revision: str = "", who: str = "", planned_seconds: float = 0.0, time_ns: int | None = None
    ) -> DeployEvent:
        """Mark a release, now or at *time_ns*; the oldest beyond ``MAX_DEPLOYS`` go."""
        deploy = DeployEvent(self._now() if time_ns is None else time_ns, title, revision, who, planned_seconds)
        with self._ledger.change() as file:
            file.execute(
                "INSERT INTO deploy (time_ns, title, revision, who, planned_seconds) VALUES (?, ?, ?, ?, ?)",
                (deploy.time_ns, title, revision, who, planned_seconds),
            )
            file.execute("DELETE FROM deploy WHERE number <= (SELECT max(number) FROM deploy) - ?", (MAX_DEPLOYS,))
        return deploy

    def deploys(self, from_ns: int = 0, until_ns: int | None = None) -> list[DeployEvent]:
        """Return the releases marked in [*from_ns*, *until_ns*), oldest first."""
        end = (1 << 63) - 1 if until_ns is None else until_ns
        rows = self._ledger.read("SELECT * FROM deploy WHERE time_ns >= ? AND time_ns < ? ORDER BY time_ns", (from_ns, end))
        return [_deploy(row) for row in rows]

    def deploys_after(self, number: int) -> list[tuple[int, DeployEvent]]:
        """Return the releases that were entered after the one with *number* (0: all), with their numbers, in that order."""
        rows = self._ledger.read("SELECT * FROM deploy WHERE number > ? ORDER BY number", (number,))
        return [(row["number"], _deploy(row)) for row in rows]


def _silence(row: sqlite3.Row) -> Silence:
    return Silence(*(row[name] for name in Silence.__struct_fields__))


def _deploy(row: sqlite3.Row) -> DeployEvent:
    return DeployEvent(*(row[name] for name in DeployEvent.__struct_fields__))
