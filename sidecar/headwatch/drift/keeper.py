"""What drift detection must not lose: baselines, and where each stratum's evidence stands, in one SQLite file.

SQLite because one window changes many strata and the clock at once, and either all of it is kept or nothing: a kill at any
instant leaves the state of some whole window, from which the next one goes on exactly.  The store (ClickHouse) has no such
transactions, and may be away.  The file stands beside the embedded store, is opened by one process, and never grows beyond
one state a stratum and the baselines that are kept.

Baselines are versions: nothing overwrites one.  Which one is in force is a column of its own, so that a rollback is as quick
as a promotion.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headwatch.errors import DriftStateError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = 1
Origin = Literal["learned", "pinned", "imported"]
_TABLES = """
CREATE TABLE baseline (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    stratum TEXT NOT NULL,
    origin TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    first_window INTEGER NOT NULL,
    last_window INTEGER NOT NULL,
    note TEXT NOT NULL,
    arrays BLOB NOT NULL
);
CREATE INDEX baseline_stratum ON baseline (stratum, version);
CREATE TABLE in_force (
    stratum TEXT PRIMARY KEY,
    version INTEGER NOT NULL REFERENCES baseline (version),
    weight_order INTEGER NOT NULL
);
CREATE TABLE state (stratum TEXT PRIMARY KEY, version INTEGER NOT NULL, arrays BLOB NOT NULL);
CREATE TABLE clock (one INTEGER PRIMARY KEY CHECK (one = 1), window INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """One version of a baseline, without its arrays."""

    version: int
    stratum: str
    origin: Origin
    created_ns: int
    first_window: int
    last_window: int
    note: str
    in_force: bool


class Keeper:
    """The file.  Used by one thread."""

    def __init__(self, path: Path) -> None:
        """Open or make the file at *path*.

        Raises:
            DriftStateError: It is no such file, or of a newer version of headwatch.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._file = sqlite3.connect(path, isolation_level=None)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            version = self._file.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise DriftStateError(f"{path} was written by a newer headwatch (version {version}, this one knows {SCHEMA})")
            if version == 0:
                self._file.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        except sqlite3.Error as error:
            raise DriftStateError(f"{path} cannot be opened as drift state: {error}") from error
        path.chmod(0o600)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add_baseline(
        self, stratum: str, origin: Origin, created_ns: int, windows: tuple[int, int], arrays: bytes, note: str = ""
    ) -> int:
        """Keep a further version of the baseline of *stratum*, not in force yet; return its version."""
        with closing(self._file.execute(
            "INSERT INTO baseline (stratum, origin, created_ns, first_window, last_window, note, arrays) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (stratum, origin, created_ns, *windows, note, arrays),
        )) as cursor:
            version = cursor.lastrowid
        assert version is not None  # the key is an INTEGER PRIMARY KEY
        return version

    def promote(self, version: int) -> None:
        """Put *version* in force; what was gathered against another one is forgotten.

        Raises:
            DriftStateError: There is no such version.
        """
        found = self._file.execute("SELECT stratum FROM baseline WHERE version = ?", (version,)).fetchone()
        if found is None:
            raise DriftStateError(f"there is no baseline {version}; `headwatch baseline list` shows those that there are")
        with self._file:
            self._file.execute("BEGIN IMMEDIATE")
            self._file.execute(
                "INSERT INTO in_force VALUES (?1, ?2, (SELECT count(*) FROM in_force)) "
                "ON CONFLICT (stratum) DO UPDATE SET version = ?2",
                (found[0], version),
            )
            self._file.execute("DELETE FROM state WHERE stratum = ? AND version != ?", (found[0], version))

    def baselines(self, stratum: str | None = None) -> list[BaselineEntry]:
        """Return the versions that are kept, of *stratum* or of all, oldest first."""
        rows = self._file.execute(
            "SELECT b.version, b.stratum, b.origin, b.created_ns, b.first_window, b.last_window, b.note, f.version IS NOT NULL "
            "FROM baseline b LEFT JOIN in_force f ON f.version = b.version "
            "WHERE ?1 IS NULL OR b.stratum = ?1 ORDER BY b.version",
            (stratum,),
        )
        return [
            BaselineEntry(version, name, origin, created_ns, first, last, note, bool(in_force))
            for version, name, origin, created_ns, first, last, note, in_force in rows
        ]

    def arrays_of(self, version: int) -> bytes:
        """Return the arrays of a baseline.

        Raises:
            DriftStateError: There is no such version.
        """
        found = self._file.execute("SELECT arrays FROM baseline WHERE version = ?", (version,)).fetchone()
        if found is None:
            raise DriftStateError(f"there is no baseline {version}; `headwatch baseline list` shows those that there are")
        return bytes(found[0])

    def in_force(self) -> dict[str, tuple[int, int]]:
        """Return for each stratum the version that is in force, and in which order (0, 1, …) strata got their first one."""
        return {
            stratum: (version, order)
            for stratum, version, order in self._file.execute("SELECT stratum, version, weight_order FROM in_force")
        }

    def save(self, window: int, states: Mapping[str, tuple[int, bytes]]) -> None:
        """Keep where each stratum stands after *window*: the version of its baseline and its arrays.  All or nothing."""
        with self._file:
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany(
                "INSERT INTO state VALUES (?1, ?2, ?3) ON CONFLICT (stratum) DO UPDATE SET version = ?2, arrays = ?3",
                [(stratum, version, arrays) for stratum, (version, arrays) in states.items()],
            )
            self._file.execute("INSERT INTO clock VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET window = ?1", (window,))

    def states(self) -> dict[str, tuple[int, bytes]]:
        """Return where each stratum stands."""
        return {
            stratum: (version, bytes(arrays))
            for stratum, version, arrays in self._file.execute("SELECT stratum, version, arrays FROM state")
        }

    def window(self) -> int:
        """Return the last window that was taken; -1 where there is none."""
        found = self._file.execute("SELECT window FROM clock").fetchone()
        return -1 if found is None else int(found[0])
