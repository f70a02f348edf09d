"""What drift detection must not lose: baselines, which of them is in force, and where the evidence stands, in one SQLite file.

SQLite because one window changes many parts and the clock at once, and either all of it is kept or nothing: a kill at any
instant leaves the state of some whole window, from which the next one goes on exactly.  The store (ClickHouse) has no such
transactions, and may be away.  The file stands beside the embedded store.  The sidecar writes it; a command may open it at the
same time, and what it puts in force the sidecar notices at its next window.

A baseline is a version of everything at once (all strata, all scopes), and versions are never overwritten; a stratum that came
later is added to the version in force as a newcomer.  What is in force is a list of its own, newest last, so that a rollback is
as quick as a promotion and both can be read afterwards.

The file never grows beyond one state a part and the versions that are kept: :data:`LEARNED_KEPT` learned ones, besides what is
or was last in force and what a person pinned or imported.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.drift.kept import NONE, BaselineEntry
from headwatch.errors import DriftStateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.drift.kept import Changes, NewBaseline

SCHEMA = 1
LEARNED_KEPT = 8
_FORGOTTEN_WINDOWS = 200_000
"""Marks of suspicion that are older than so many windows speak of windows that no history has any more."""
_TABLES = """
CREATE TABLE IF NOT EXISTS baseline (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    origin TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    first_window INTEGER NOT NULL,
    last_window INTEGER NOT NULL,
    windows INTEGER NOT NULL,
    note TEXT NOT NULL,
    facts TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS part (
    version INTEGER NOT NULL REFERENCES baseline (version),
    key TEXT NOT NULL,
    newcomer INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (version, key)
);
CREATE TABLE IF NOT EXISTS in_force (
    promotion INTEGER PRIMARY KEY AUTOINCREMENT,
    version INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    who TEXT NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS clock (
    one INTEGER PRIMARY KEY CHECK (one = 1), window INTEGER NOT NULL, promotion INTEGER NOT NULL, facts TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS memory (name TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS suspect (number INTEGER PRIMARY KEY, why TEXT NOT NULL);
"""
class Keeper:
    """The file.  A connection is used by one thread."""

    def __init__(self, path: Path) -> None:
        """Open or make the file at *path*.

        Raises:
            DriftStateError: It is no such file, or of a newer version of headwatch.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(path, isolation_level=None)
        try:
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            version = self._file.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._file.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        except sqlite3.Error as error:
            self._file.close()
            raise DriftStateError(f"{path} cannot be opened as drift state: {error}") from error
        if version > SCHEMA:
            self._file.close()
            raise DriftStateError(f"{path} was written by a newer headwatch (version {version}, this one knows {SCHEMA})")
        path.chmod(0o600)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, new: NewBaseline) -> int:
        """Keep a further version, not in force yet; return its number."""
        with self._whole():
            return self._add(new)

    def baselines(self) -> list[BaselineEntry]:
        """Return the versions that are kept, oldest first."""
        _, current = self.in_force()
        rows = self._file.execute(
            "SELECT version, origin, created_ns, first_window, last_window, windows, note, facts FROM baseline ORDER BY version"
        )
        return [
            BaselineEntry(version, origin, created, first, last, windows, note, msgspec.json.decode(facts), version == current)
            for version, origin, created, first, last, windows, note, facts in rows
        ]

    def baseline(self, version: int) -> BaselineEntry:
        """Return one version.

        Raises:
            DriftStateError: There is no such version.
        """
        for entry in self.baselines():
            if entry.version == version:
                return entry
        raise DriftStateError(f"there is no baseline {version}; `headwatch baseline list` shows those that there are")

    def parts(self, version: int) -> dict[str, tuple[int, bytes]]:
        """Return by key the parts of *version*: 0 or in which order (1, 2, …) it came later, and its content."""
        self.baseline(version)
        rows = self._file.execute("SELECT key, newcomer, content FROM part WHERE version = ? ORDER BY rowid", (version,))
        return {key: (newcomer, bytes(content)) for key, newcomer, content in rows}

    def promote(self, version: int, time_ns: int, who: str) -> None:
        """Put *version* in force.

        Raises:
            DriftStateError: There is no such version.
        """
        self.baseline(version)
        with self._whole():
            self._promote(version, time_ns, who)

    def pin(self, version: int, note: str = "") -> None:
        """Mark *version* as one that a person wants kept, with another *note* where one is given.

        Raises:
            DriftStateError: There is no such version.
        """
        self.baseline(version)
        pinned = "UPDATE baseline SET origin = 'pinned', note = CASE WHEN ?1 = '' THEN note ELSE ?1 END WHERE version = ?2"
        self._file.execute(pinned, (note, version))

    def rollback(self) -> int:
        """Put in force what was in force before; return it.

        Raises:
            DriftStateError: Nothing was.
        """
        with self._whole():
            standing = self._standing()
            kept = {version for (version,) in self._file.execute("SELECT version FROM baseline")}
            place = next((i for i, (_, v) in enumerate(standing) if i and v != standing[0][1] and v in kept), None)
            if place is None:
                raise DriftStateError("no other baseline that is still kept was in force before")
            undone = [(promotion,) for promotion, _ in standing[:place]]
            self._file.executemany("UPDATE in_force SET undone = 1 WHERE promotion = ?", undone)
            return standing[place][1]

    def in_force(self) -> tuple[int, int]:
        """Return which promotion holds and its version, which may be :data:`NONE`; (0, NONE) where there never was one."""
        standing = self._standing()
        return standing[0] if standing else (0, NONE)

    def save(self, changes: Changes) -> tuple[int, int]:
        """Keep *changes*, all or nothing; return the promotion and the version that hold for the next window."""
        with self._whole():
            promotion, version = changes.promotion, changes.version
            added = self._add(changes.baseline) if changes.baseline is not None else NONE
            if changes.promote:
                version = added
                created_ns = changes.baseline.created_ns if changes.baseline is not None else 0
                promotion = self._promote(version, created_ns, "headwatch")
            self._file.executemany(
                "INSERT OR IGNORE INTO part VALUES (?, ?, ?, ?)",
                [(version, key, order, content) for key, (order, content) in changes.newcomers.items()],
            )
            self._file.executemany("INSERT OR REPLACE INTO suspect VALUES (?, ?)", list(changes.suspect.items()))
            self._file.execute("DELETE FROM suspect WHERE number < ?", (changes.window - _FORGOTTEN_WINDOWS,))
            self._file.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", list(changes.states.items()))
            gone = [(key,) for (key,) in self._file.execute("SELECT key FROM state") if key not in changes.states]
            self._file.executemany("DELETE FROM state WHERE key = ?", gone)
            facts = msgspec.json.encode(changes.facts).decode()
            self._file.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?)", (changes.window, promotion, facts))
            return promotion, version

    def saved_for(self) -> int:
        """Return the promotion that the saved states belong to; -1 where nothing was saved."""
        found = self._file.execute("SELECT promotion FROM clock").fetchone()
        return -1 if found is None else int(found[0])

    def states(self) -> dict[str, bytes]:
        """Return where each part stands."""
        return {key: bytes(content) for key, content in self._file.execute("SELECT key, content FROM state")}

    def window(self) -> int:
        """Return the last window that was taken; -1 where there is none."""
        found = self._file.execute("SELECT window FROM clock").fetchone()
        return -1 if found is None else int(found[0])

    def facts(self) -> dict[str, Any]:
        """Return the facts of the last window that was taken; empty where there is none."""
        found = self._file.execute("SELECT facts FROM clock").fetchone()
        return {} if found is None else msgspec.json.decode(found[0])

    def suspects(self, first: int, last: int) -> dict[int, str]:
        """Return the windows from *first* to *last*, both included, that no baseline may learn from, and why."""
        return dict(self._file.execute("SELECT number, why FROM suspect WHERE number BETWEEN ? AND ?", (first, last)))

    def pardon(self, first: int, last: int) -> None:
        """Lift the suspicion that a page brought over the windows *first* to *last*; a fault of telemetry remains one."""
        self._file.execute("DELETE FROM suspect WHERE number BETWEEN ? AND ? AND why IN ('page', 'incident')", (first, last))

    def remember(self, name: str, content: bytes) -> None:
        """Keep *content* under *name*, in place of what was there."""
        self._file.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", (name, content))

    def recall(self, name: str) -> bytes | None:
        """Return what was kept under *name*."""
        found = self._file.execute("SELECT content FROM memory WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    @contextmanager
    def _whole(self) -> Iterator[None]:
        with self._file:
            self._file.execute("BEGIN IMMEDIATE")
            yield

    def _standing(self) -> list[tuple[int, int]]:
        """Return the promotions that were not undone, the latest first."""
        return self._file.execute("SELECT promotion, version FROM in_force WHERE NOT undone ORDER BY promotion DESC").fetchall()

    def _promote(self, version: int, time_ns: int, who: str) -> int:
        inserted = "INSERT INTO in_force (version, time_ns, who) VALUES (?, ?, ?) RETURNING promotion"
        return int(self._file.execute(inserted, (version, time_ns, who)).fetchone()[0])

    def _add(self, new: NewBaseline) -> int:
        with closing(self._file.execute(
            "INSERT INTO baseline (origin, created_ns, first_window, last_window, windows, note, facts) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (new.origin, new.created_ns, new.first_window, new.last_window, new.windows, new.note,
             msgspec.json.encode(new.facts).decode()),
        )) as cursor:  # fmt: skip
            version = cursor.lastrowid
        assert version is not None  # the key is an INTEGER PRIMARY KEY
        self._file.executemany(
            "INSERT INTO part VALUES (?, ?, 0, ?)", [(version, key, content) for key, content in new.parts.items()]
        )
        self._prune()
        return version

    def _prune(self) -> None:
        standing = {version for _, version in self._standing()[:2]}
        learned = self._file.execute("SELECT version FROM baseline WHERE origin = 'learned' ORDER BY version DESC").fetchall()
        gone = [(version,) for (version,) in learned[LEARNED_KEPT:] if version not in standing]
        self._file.executemany("DELETE FROM part WHERE version = ?", gone)
        self._file.executemany("DELETE FROM baseline WHERE version = ?", gone)
