"""A connection to the store: chDB embedded in this process, or a ClickHouse server by URL.  One code path.

chDB belongs to one process at a time; the second is told so in one line.  Queries are guarded by a lock: chDB answers one at a
time anyway, and a shared HTTP client must not mix sessions.  Inserts have a session and a lock of their own.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from headwatch.addresses import mask_url
from headwatch.errors import StoreError, StoreUnavailable
from headwatch.places import store_url
from headwatch_exporters.clickhouse.unfinished import require_whole
from headwatch_exporters.clickhouse.writing.inserts import (
    SETTINGS,
    EmbeddedInserts,
    HttpInserts,
    Inserts,
    cause,
    error_code,
    passes,
    require_space,
)
from headwatch_exporters.clickhouse.writing.native import native_blocks
from headwatch_exporters.clickhouse.writing.parts import forget_all_lost, torn_parts
from headwatch_exporters.spool.record import BatchWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.config import StoreConfig
    from headwatch_exporters.clickhouse.columns import Columns
    from headwatch_exporters.spool.record import Batch

CONNECT_SECONDS = 5
QUERY_SECONDS = 60
_PASSES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""What keeps a folder from being written for a while."""


class Connection:
    """Queries and inserts, safe from threads.  Where the store is not there yet it is asked again at each use."""

    def __init__(self, url: str, *, min_free_bytes: int = 0, restoring: bool = False) -> None:
        """*min_free_bytes* must be free for an embedded store to be written; *restoring*: open one that is not whole, too."""
        self._min_free_bytes = min_free_bytes
        self._scheme, self._path = _parse(url)
        self._restoring = restoring
        self._dsn = url
        self._query_lock = threading.Lock()
        self._insert_lock = threading.Lock()
        self._client: Any = None
        self._inserts: Inserts | None = None
        self._merges: Any = None
        self._merges_stopped = False
        self.url = mask_url(url)
        """For messages: the password is masked."""

    @property
    def folder(self) -> Path | None:
        """Return the folder of an embedded store; None of a server."""
        return self._path if self._scheme == "chdb" else None

    def open(self) -> None:
        """Connect, unless that is done.

        Raises:
            StoreError: The store is in use by another process, or refuses.
            StoreUnavailable: It cannot be reached, or not be written at the moment.
        """
        if self._client is None:  # an insert does not wait for a query that takes long
            with self._query_lock:
                self._open()

    def require_space(self) -> None:
        """See that an embedded store's disk has room for a change: what is written on a full one cannot be read.

        Raises:
            StoreUnavailable: It has not.
        """
        if self._scheme == "chdb":
            require_space(self._path, f"a change of {self.url}", self._min_free_bytes)
            if self._merges_stopped:
                raise StoreUnavailable(f"a change of {self.url} failed: the disk was nearly full, and merges are stopped still")

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of *sql* by column name; ``{name:Type}`` in it are bound to *parameters* by the server.

        Raises:
            StoreUnavailable: It cannot be reached, or has no space, memory or time for this at the moment.
            StoreError: The store refuses.
        """
        with self._guarded("query") as client:
            result = client.query(sql, parameters=parameters or {})
            return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    def command(self, sql: str, parameters: dict[str, Any] | None = None) -> None:
        """Run *sql*, which returns nothing; ``{name:Type}`` in it are bound to *parameters* by the server.

        Raises:
            StoreUnavailable: It cannot be reached, or has no space, memory or time for this at the moment.
            StoreError: The store refuses.
        """
        with self._guarded("command") as client:
            client.command(sql, parameters=parameters or {})

    def insert(self, table: str, columns: Columns, token: str) -> int:
        """Insert *columns* of equal length into *table*, and return the number of rows.

        *token* names this batch: a second insert with the same one is taken as the same and changes nothing.

        Raises:
            StoreError: The store refuses, or cannot be reached.
        """
        rows = len(next(iter(columns.values())))
        if rows:
            types = {row["name"]: row["type"] for row in self.query("DESCRIBE TABLE {table:Identifier}", {"table": table})}
            writer = BatchWriter(table, tuple(columns), token)
            writer.add(rows, native_blocks(columns, types))
            self.insert_batch(writer.batch())
        return rows

    def insert_batch(self, batch: Batch) -> None:
        """Insert *batch*; one whose token is known already changes nothing.

        Raises:
            BatchRefused: The store will never take it.
            StoreUnavailable: The store cannot be reached.
            StoreError: The store refuses at the moment.
        """
        self.open()
        with self._insert_lock:
            self._open_inserts().insert(batch)

    def mend(self) -> int:
        """Put right what a full disk has left in an embedded store, and return how many tables had to be.

        Raises:
            Exception: The store or the disk does not let us.
        """
        self.open()
        with self._insert_lock:
            inserts = self._open_inserts()
            return inserts.mend() if isinstance(inserts, EmbeddedInserts) else 0

    @property
    def unfinished(self) -> bool:
        """Return whether a table of an embedded store is detached, to be mended."""
        return isinstance(self._inserts, EmbeddedInserts) and self._inserts.mending.unfinished

    def torn_since(self, seconds: int) -> bool:
        """Return whether a part of an embedded store was torn that was made from *seconds* (since 1970) on.

        Raises:
            Exception: The store or the disk does not let us.
        """
        return bool(torn_parts(self.beside, seconds))

    @property
    def is_open(self) -> bool:
        """Return whether there is a connection."""
        return self._client is not None

    def stop_merges(self) -> None:
        """Stop the merges of an embedded store, at once: neither a query nor an insert holds that up.

        Raises:
            Exception: It refuses.
        """
        self._merges_stopped = True
        if isinstance(self._inserts, EmbeddedInserts):
            self._inserts.mending.merges_stopped = True
        self.beside("SYSTEM STOP MERGES")

    def start_merges(self) -> None:
        """Have them begin again, once no insert is under way.

        Raises:
            Exception: It refuses.
        """
        with self._insert_lock:
            self.beside("SYSTEM START MERGES")
            self._merges_stopped = False
            if isinstance(self._inserts, EmbeddedInserts):
                self._inserts.mending.merges_stopped = False

    def beside(self, sql: str) -> str:
        """Run *sql* on an embedded store on a handle of its own, and return the answer as text.

        For one thread, which waits neither for queries nor for inserts.

        Raises:
            Exception: The store refuses.
        """
        if self._merges is None:
            import chdb  # noqa: PLC0415 - heavy

            self._merges = chdb.connect(os.path.realpath(self._path))
        return str(self._merges.query(sql))

    def close(self) -> None:
        """Close the sessions."""
        with self._query_lock, self._insert_lock:
            for session in (self._inserts, self._merges, self._client):
                if session is not None:
                    session.close()

    @contextmanager
    def _guarded(self, what: str) -> Iterator[Any]:
        with self._query_lock:
            client = self._open()
            try:
                yield client
            except Exception as error:
                answered = self._scheme == "chdb" or error_code(error) is not None
                kind = StoreError if answered and not passes(error) else StoreUnavailable
                raise kind(f"{what} on {self.url} failed: {cause(error)}") from error

    def _open(self) -> Any:
        if self._client is None:
            if self._scheme == "chdb":
                _make_folder(self._path)
                if not self._restoring:
                    require_whole(self._path)
                shutil.rmtree(self._path.with_name(f"{self._path.name}.tmp"), ignore_errors=True)  # of versions without a spool
                self._forget_lost()
            self._client = self._session()
        return self._client

    def _open_inserts(self) -> Inserts:
        if self._inserts is None:
            if self._scheme == "chdb":  # the path as the driver spells it: chDB compares letter by letter
                path = os.path.realpath(self._path)
                made = EmbeddedInserts(path, self._min_free_bytes)
                made.mending.merges_stopped = self._merges_stopped
                self._inserts = made
            else:
                self._inserts = HttpInserts(self._session(), self.url)
        return self._inserts

    def _forget_lost(self) -> None:
        try:
            forget_all_lost(self._path)
        except OSError as error:
            if error.errno not in _PASSES:  # else it can be read, and the first insert comes back to it
                raise StoreError(f"cannot open the store {self._path}: {error.strerror}") from error

    def _session(self) -> Any:
        """Return a client of the driver.

        Raises:
            StoreError: The store is in use by another process, or refuses.
            StoreUnavailable: It cannot be reached, or not be written at the moment.
        """
        import clickhouse_connect  # noqa: PLC0415 - heavy, and only where a store is wanted

        try:
            if self._scheme == "chdb":
                return clickhouse_connect.get_client(dsn=self._dsn, settings=SETTINGS)
            return clickhouse_connect.get_client(
                dsn=self._dsn, settings=SETTINGS, secure=self._scheme == "https",  # the driver looks at the port
                connect_timeout=CONNECT_SECONDS, send_receive_timeout=QUERY_SECONDS,
            )  # fmt: skip
        except Exception as error:
            raise _failure(self._dsn, self._path, error) from error


def connect(config: StoreConfig) -> Connection:
    """Return a connection to the store of *config*; the database that its URL names must exist.

    Raises:
        StoreError: The URL is none of a store, the path is in use by another process or cannot be written, or the server
            cannot be reached.
    """
    connection = unconnected(config)
    connection.open()
    return connection


def unconnected(config: StoreConfig, *, restoring: bool = False) -> Connection:
    """Return a connection to the store of *config* that is opened at its first use; *restoring*: also one that is not whole.

    Raises:
        StoreError: The URL is none of a store, or what the store needs is not installed.
    """
    try:
        import clickhouse_connect  # noqa: F401, PLC0415 - heavy, and only where a store is wanted
    except ImportError as error:
        raise StoreError(f"the store needs {error.name}; run: pip install 'headwatch[sidecar]'") from error
    return Connection(store_url(config), min_free_bytes=config.min_free_bytes, restoring=restoring)


def _parse(url: str) -> tuple[str, Path]:
    parts = urlsplit(url)
    embedded = parts.scheme == "chdb" and not parts.netloc and len(parts.path) > 1
    if embedded or (parts.scheme in {"http", "https"} and parts.hostname):
        return parts.scheme, Path(parts.path)
    raise StoreError(f"store.url {mask_url(url)!r}: give chdb:///absolute/path or http(s)://user:password@host:8123/database")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))  # noqa: TRY301 - the same word whichever call finds it
    except OSError as error:
        kind = StoreUnavailable if error.errno in _PASSES else StoreError
        raise kind(f"cannot create the store's folder {path}: {error.strerror} (store.url)") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StoreError(f"cannot write to the store's folder {path} (store.url)")


def _failure(url: str, path: Path, error: Exception) -> StoreError:
    text = str(error)
    if not url.startswith("chdb://"):
        kind = StoreError if error_code(error) is not None and not passes(error) else StoreUnavailable
        return kind(f"cannot open the store {mask_url(url)}: {cause(error)}")
    if "already initialized with path" in text:
        return StoreError(f"cannot open the store {path}: this process has another embedded store open")
    if passes(error):
        return StoreUnavailable(f"cannot open the store {path}: {cause(error)}")
    if empty := next((file for file in path.glob("store/*/*/*.sql") if not file.stat().st_size), None):
        return StoreError(f"cannot open the store {path}: {empty} is empty, as a full disk leaves it; remove it if that "
                          "table was just being made, else restore a backup")
    if any(code in text for code in ("Code: 76", "CANNOT_OPEN_FILE", "Cannot lock file", "EmbeddedServer")):
        return StoreError(
            f"the store {path} is in use by another process; an embedded store belongs to one sidecar: stop the other, "
            "or give this one a path of its own (store.url)"
        )
    return StoreError(f"cannot open the store {path}: {cause(error)}")
