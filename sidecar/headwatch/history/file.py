"""The history: every observed window, in one SQLite file, until room is needed or it is too old.

What drift detection has seen is kept before it is looked at, so that a kill at any instant loses no window that was judged, and
a baseline can be learned, a detector backtested and two times compared from what really was.  A window is kept once: appending
its number again changes nothing.  The oldest windows make room when *max_bytes* are reached, and go after *max_days*: their
examples name requests, documents and users.  A clock that is wrong for a while must not cost the history: age is counted from
the earliest of the last two windows' ends and the time now, and one window lets few others go.

An exported file is a history like any other, with a word about where it comes from: recordings of benchmarks, and what
``headwatch compare`` holds side by side.  SQLite, because a reader (a command, the console) may open the file while the sidecar
writes, and either sees a window whole or not at all.

Cost: the bytes of :mod:`headwatch.history.codec`; one transaction a window, below a millisecond beside the encoding.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from headwatch.errors import HistoryError
from headwatch.history.codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from headwatch.observed import ObservedWindow

SCHEMA = 1
APPLICATION = 0x48574849
"""``HWHI`` in SQLite's application id: tells a history from any other database."""
DEFAULT_BYTES = 2 * 1024 * 1024 * 1024
DEFAULT_DAYS = 400
_LAST = 2**63 - 1
_FREED_SHARE = 0.02
"""So much is freed at once when room is needed, so that not every window has to make room."""
_MOST_FORGOTTEN = 60
"""Windows that go with age when one comes: after a standstill of a day all that is due has gone in half an hour."""
_TABLES = """
CREATE TABLE IF NOT EXISTS window (
    number INTEGER PRIMARY KEY,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    content BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class History:
    """The file.  A connection is used by one thread; several may be open at once, in several processes."""

    def __init__(
        self, path: Path | str, max_bytes: int = DEFAULT_BYTES, *, max_days: int = DEFAULT_DAYS, read_only: bool = False,
        now: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        """Open the file at *path*, or make it.  *now* (ns since 1970) bounds what is too old.

        Raises:
            HistoryError: It is no history, or of a newer version of headwatch.
        """
        self._path = Path(path)
        self._max_bytes = max_bytes
        self._max_ns = max_days * 86_400 * 10**9
        self._now = now
        self.read_only = read_only
        if read_only:
            self._file = _reader(self._path)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _writer(self._path, "WAL")
        self._path.chmod(0o600)
        self._bytes = int(self._file.execute("SELECT coalesce(sum(bytes), 0) FROM window").fetchone()[0])

    @classmethod
    def open_readonly(cls, path: Path | str) -> Self:
        """Return the history at *path*, which must be there, for reading alone.

        Raises:
            HistoryError: There is none, or it cannot be read.
        """
        return cls(path, read_only=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """Return where the file is."""
        return self._path

    def append(self, window: ObservedWindow) -> bool:
        """Keep *window*; return whether it is new.  A number that is kept already stays as it is."""
        content = encode(window)
        with self._file:
            self._file.execute("BEGIN IMMEDIATE")
            row = (window.number, window.start_ns, window.end_ns, len(content), content)
            new = self._file.execute("INSERT OR IGNORE INTO window VALUES (?, ?, ?, ?, ?)", row).rowcount > 0
            if new:
                self._bytes += len(content)
                self._forget_old(window)
                if self._bytes > self._max_bytes:
                    self._make_room()
        return new

    def read(self, first: int = 0, last: int = _LAST) -> Iterator[ObservedWindow]:
        """Yield the windows numbered *first* to *last*, both included, in order.

        Raises:
            HistoryError: A window cannot be read.
        """
        for number in self.numbers(first, last):  # one at a time: the writer is never held up, and memory is one window
            with closing(self._file.execute("SELECT content FROM window WHERE number = ?", (number,))) as found:
                kept = found.fetchone()
            if kept is not None:  # else it made room in the meantime
                yield decode(kept[0])

    def numbers(self, first: int = 0, last: int = _LAST) -> list[int]:
        """Return the numbers of the windows from *first* to *last*, both included, in order."""
        found = self._file.execute("SELECT number FROM window WHERE number BETWEEN ? AND ? ORDER BY number", (first, last))
        return [number for (number,) in found]

    def span(self) -> tuple[int, int] | None:
        """Return the numbers of the first and the last window; None where there is none."""
        first, last = self._file.execute("SELECT min(number), max(number) FROM window").fetchone()
        return None if first is None else (first, last)

    def times(self) -> tuple[int, int] | None:
        """Return when the first window began and the last one ended (ns); None where there is none."""
        first, last = self._file.execute("SELECT min(start_ns), max(end_ns) FROM window").fetchone()
        return None if first is None else (first, last)

    def between(self, start_ns: int, end_ns: int) -> list[int]:
        """Return the numbers of the windows that began at *start_ns* or later and before *end_ns*."""
        found = self._file.execute(
            "SELECT number FROM window WHERE start_ns >= ? AND start_ns < ? ORDER BY number", (start_ns, end_ns)
        )
        return [number for (number,) in found]

    def within(self, start_ns: int, end_ns: int) -> list[int]:
        """Return the numbers of the windows that began at *start_ns* or later and ended at *end_ns* or before."""
        found = self._file.execute(
            "SELECT number FROM window WHERE start_ns >= ? AND end_ns <= ? ORDER BY number", (start_ns, end_ns)
        )
        return [number for (number,) in found]

    def meta(self) -> dict[str, Any]:
        """Return what the file says of its origin; empty for a live history."""
        return {name: msgspec.json.decode(value) for name, value in self._file.execute("SELECT name, value FROM meta")}

    def rewrite(self, change: Callable[[ObservedWindow], ObservedWindow | None]) -> None:
        """Keep of each window what *change* returns, and nothing of it where that is None; what was there cannot be read back.

        Raises:
            HistoryError: A window cannot be read.
        """
        for number in self.numbers():
            (content,) = self._file.execute("SELECT content FROM window WHERE number = ?", (number,)).fetchone()
            before = decode(content)
            after = change(before)
            if after is before:
                continue
            if after is None:
                self._file.execute("DELETE FROM window WHERE number = ?", (number,))
            else:
                fresh = encode(after)
                self._file.execute("UPDATE window SET bytes = ?, content = ? WHERE number = ?", (len(fresh), fresh, number))
        forget_freed_pages(self._file)
        self._bytes = int(self._file.execute("SELECT coalesce(sum(bytes), 0) FROM window").fetchone()[0])

    def export(
        self, path: Path | str, meta: Mapping[str, Any] | None = None, *, first: int = 0, last: int = _LAST
    ) -> int:
        """Write the windows *first* to *last* and *meta* to a new file at *path*, whole or not at all; return how many.

        Raises:
            HistoryError: The file cannot be written.
        """
        target = Path(path)
        unfinished = target.with_name(target.name + ".unfinished")
        unfinished.unlink(missing_ok=True)
        count = 0
        try:
            with closing(_writer(unfinished, "DELETE")) as file, file:
                file.execute("BEGIN")
                chosen = "SELECT * FROM window WHERE number BETWEEN ? AND ? ORDER BY number"
                for row in self._file.execute(chosen, (first, last)):
                    file.execute("INSERT INTO window VALUES (?, ?, ?, ?, ?)", row)
                    count += 1
                named = [(name, msgspec.json.encode(value).decode()) for name, value in (meta or {}).items()]
                file.executemany("INSERT INTO meta VALUES (?, ?)", named)
            unfinished.chmod(0o600)
            unfinished.replace(target)
        except (sqlite3.Error, OSError) as error:
            raise HistoryError(f"{path} cannot be written: {error}") from error
        finally:
            unfinished.unlink(missing_ok=True)
        return count

    def _forget_old(self, latest: ObservedWindow) -> None:
        """Delete the windows, the oldest first, that are too old once *latest* has come.

        One that seems to lie in the future was made by a wrong clock, and goes with those around it.
        """
        before = self._file.execute("SELECT end_ns FROM window WHERE number < ? ORDER BY number DESC LIMIT 1", (latest.number,))
        (previous,) = before.fetchone() or (latest.end_ns,)
        now_ns = min(latest.end_ns, previous, self._now())
        last = None
        chosen = "SELECT number, end_ns FROM window WHERE end_ns <= ? ORDER BY number LIMIT ?"
        for number, end_ns in self._file.execute(chosen, (now_ns, _MOST_FORGOTTEN)):
            if end_ns >= now_ns - self._max_ns:
                break
            last = number
        if last is not None:
            (freed,) = self._file.execute("SELECT sum(bytes) FROM window WHERE number <= ?", (last,)).fetchone()
            self._file.execute("DELETE FROM window WHERE number <= ?", (last,))
            self._bytes -= freed

    def _make_room(self) -> None:
        wanted = self._bytes - self._max_bytes * (1.0 - _FREED_SHARE)
        last = freed = 0
        for number, size in self._file.execute("SELECT number, bytes FROM window ORDER BY number"):
            if freed >= wanted:
                break
            last, freed = number, freed + size
        self._file.execute("DELETE FROM window WHERE number <= ?", (last,))
        self._bytes -= freed


def forget_freed_pages(file: sqlite3.Connection) -> None:
    """Write the database of *file* anew, and empty its log: what was deleted or changed cannot be read back.

    Raises:
        sqlite3.Error: Somebody reads it, or there is no room.
    """
    file.execute("VACUUM")
    busy = file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        raise sqlite3.OperationalError("somebody reads the file, so that its log cannot be emptied")


def _writer(path: Path, journal: str) -> sqlite3.Connection:
    """Return the file at *path*, made where there is none; with *journal* ``DELETE`` no log is left beside it."""
    file = _connected(path, "rwc")
    try:
        file.execute(f"PRAGMA journal_mode = {journal}")
        file.execute("PRAGMA synchronous = NORMAL")
        if file.execute("PRAGMA user_version").fetchone()[0] == 0:
            pragmas = f"PRAGMA user_version = {SCHEMA}; PRAGMA application_id = {APPLICATION};"
            file.executescript(f"BEGIN IMMEDIATE; {_TABLES} {pragmas} COMMIT;")
    except sqlite3.Error as error:
        file.close()
        raise HistoryError(f"{path} cannot be opened as history: {error}") from error
    return file


def _reader(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise HistoryError(f"there is no history at {path}")
    return _connected(path, "ro")


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    """Return the file at *path*, which is a history that is understood, or, for a writer, empty."""
    try:
        file = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise HistoryError(f"{path} cannot be opened as history: {error}") from error
    try:
        version, application, tables = (
            file.execute(f"SELECT {asked}").fetchone()[0]
            for asked in ("user_version FROM pragma_user_version", "application_id FROM pragma_application_id",
                          "count(*) FROM sqlite_master")
        )  # fmt: skip
        problem = _problem(version, application, tables, mode)
    except sqlite3.Error as error:
        problem = f"cannot be opened as history: {error}"
    if problem:
        file.close()
        raise HistoryError(f"{path} {problem}")
    return file


def _problem(version: int, application: int, tables: int, mode: str) -> str:
    if application != APPLICATION and (tables or mode == "ro"):
        return "is a database, but no history of headwatch"
    if version > SCHEMA:
        return f"was written by a newer headwatch (version {version}, this one knows {SCHEMA})"
    return ""
