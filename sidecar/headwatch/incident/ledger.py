"""The file of incidents: one SQLite database that the sidecar and the commands open at the same time.

SQLite because an incident, what is to be sent of it and who changed it belong together: a kill at any instant leaves all of
them or none.  Write-ahead logging lets a reader at a terminal never wait for the sidecar; writers wait for each other for a few
seconds at most.  ``synchronous = FULL``: a page that was promised is on the disk before anything is sent.

It costs one small file (an incident is 5 to 30 KB, frozen evidence included) that is pruned: resolved incidents beyond
``MAX_INCIDENTS``, oldest first, and those older than ``store.incident_ttl_days`` go, and with them what was written about them.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headwatch.errors import IncidentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = 1
FILE_NAME = "incidents.db"
BUSY_SECONDS = 10.0
MAX_INCIDENTS = 10_000
_TABLES = """
CREATE TABLE incident (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    drift_class TEXT NOT NULL,
    model TEXT NOT NULL,
    opened_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL,
    resolved_ns INTEGER NOT NULL,
    paged INTEGER NOT NULL,
    ruling TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX incident_state ON incident (state, opened_ns);
CREATE TABLE event (
    id TEXT PRIMARY KEY,
    incident TEXT NOT NULL REFERENCES incident (id) ON DELETE CASCADE,
    time_ns INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX event_incident ON event (incident, time_ns);
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    incident TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    note TEXT NOT NULL
);
CREATE INDEX audit_incident ON audit (incident, number);
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    incident TEXT NOT NULL,
    route TEXT NOT NULL,
    kind TEXT NOT NULL,
    page INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_ns INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    body BLOB NOT NULL
);
CREATE TABLE silence (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    drift_class TEXT NOT NULL,
    model TEXT NOT NULL,
    route TEXT NOT NULL,
    from_ns INTEGER NOT NULL,
    until_ns INTEGER NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL
);
CREATE TABLE deploy (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ns INTEGER NOT NULL,
    title TEXT NOT NULL,
    revision TEXT NOT NULL,
    who TEXT NOT NULL,
    planned_seconds REAL NOT NULL
);
CREATE INDEX deploy_time ON deploy (time_ns);
"""


class Ledger:
    """One connection to the file; threads of a process may share it, since each takes its turn."""

    def __init__(self, path: Path) -> None:
        """Open or make the file at *path*.

        Raises:
            IncidentError: It is no such file, or of a newer version of headwatch.
        """
        self.path = path
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
            path.chmod(0o600)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.execute("PRAGMA foreign_keys = ON")
            self._file.row_factory = sqlite3.Row
            self._create()
        except sqlite3.Error as error:
            raise IncidentError("file", f"{path} cannot be opened as the file of incidents: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one change, which is kept as a whole or not at all.

        Raises:
            IncidentError: Another process holds the file for too long, or the disk refuses.
        """
        with self._lock:
            try:
                self._file.execute("BEGIN IMMEDIATE")
                try:
                    yield self._file
                except BaseException:
                    self._file.execute("ROLLBACK")
                    raise
                self._file.execute("COMMIT")
            except sqlite3.Error as error:
                raise IncidentError("file", f"{self.path} cannot be changed: {error}") from error

    def read(self, statement: str, values: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        """Return the rows that *statement* finds.

        Raises:
            IncidentError: The file cannot be read.
        """
        with self._lock:
            try:
                return self._file.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise IncidentError("file", f"{self.path} cannot be read: {error}") from error

    def _create(self) -> None:
        with self._lock:
            self._file.execute("BEGIN IMMEDIATE")  # two processes may both find the file new
            version = self._file.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                self._file.execute("ROLLBACK")
                raise IncidentError(
                    "file", f"{self.path} was written by a newer headwatch (version {version}, this one knows {SCHEMA})"
                )
            if version == 0:
                for statement in _TABLES.split(";"):
                    if statement.strip():
                        self._file.execute(statement)
                self._file.execute(f"PRAGMA user_version = {SCHEMA}")
            self._file.execute("COMMIT")
