"""A connection to the store: chDB embedded in this process, or a ClickHouse server by URL.  One code path.

chDB belongs to one process at a time; the second is told so in one line.  A client is guarded by a lock: chDB answers
one query at a time anyway, and a shared HTTP client must not mix sessions.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from headwatch.addresses import mask_url
from headwatch.errors import StoreError
from headwatch.places import store_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headwatch.config import StoreConfig

SETTINGS = {
    "async_insert": 0,  # chDB's default of 1 makes each small insert wait
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}
CONNECT_SECONDS = 5
QUERY_SECONDS = 60


class Connection:
    """Queries and inserts, safe from threads."""

    def __init__(self, client: Any, url: str, temporary: Path | None = None) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._temporary = temporary
        self.url = url
        """For messages: the password is masked."""

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of *sql* by column name; ``{name:Type}`` in it are bound to *parameters* by the server.

        Raises:
            StoreError: The store refuses, or cannot be reached.
        """
        with self._guarded("query"):
            result = self._client.query(sql, parameters=parameters or {})
            return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    def command(self, sql: str) -> None:
        """Run *sql*, which returns nothing.

        Raises:
            StoreError: The store refuses, or cannot be reached.
        """
        with self._guarded("command"):
            self._client.command(sql)

    def insert(self, table: str, columns: Mapping[str, Sequence[Any]], token: str) -> int:
        """Insert *columns* of equal length into *table*, and return the number of rows.

        *token* names this batch: a second insert with the same one is taken as the same and changes nothing.

        Raises:
            StoreError: The store refuses, or cannot be reached.
        """
        rows = len(next(iter(columns.values())))
        if rows == 0:
            return 0
        with self._guarded(f"insert into {table}"), _temporary_files_in(self._temporary):
            self._client.insert(
                table, list(columns.values()), column_names=list(columns), column_oriented=True,
                settings={"insert_deduplication_token": token},
            )  # fmt: skip
        return rows

    def close(self) -> None:
        """Close the client."""
        with self._lock:
            self._client.close()
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except Exception as error:
                raise StoreError(f"{what} on {self.url} failed: {_cause(error)}") from error


def connect(config: StoreConfig) -> Connection:
    """Return a connection to the store of *config*; the database that its URL names must exist.

    Raises:
        StoreError: The URL is none of a store, the path is in use by another process or cannot be written, or the server
            cannot be reached.
    """
    url = store_url(config)
    try:
        import clickhouse_connect  # noqa: PLC0415 - heavy, and only where a store is wanted
        from clickhouse_connect.datatypes.format import set_write_format  # noqa: PLC0415
    except ImportError as error:
        raise StoreError(f"the store needs {error.name}; run: pip install 'headwatch[sidecar]'") from error
    set_write_format("DateTime64", "int")  # times are nanoseconds since 1970
    scheme, path = _parse(url)
    try:
        if scheme == "chdb":
            _make_folder(path)
            client = clickhouse_connect.get_client(dsn=url, settings=SETTINGS)
            return Connection(client, url, _empty_folder(path.with_name(f"{path.name}.tmp")))
        client = clickhouse_connect.get_client(
            dsn=url, settings=SETTINGS, secure=scheme == "https",  # the driver itself looks at the port, not the scheme
            connect_timeout=CONNECT_SECONDS, send_receive_timeout=QUERY_SECONDS,
        )  # fmt: skip
        return Connection(client, mask_url(url))
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(_explain(url, path, error)) from error


def _parse(url: str) -> tuple[str, Path]:
    parts = urlsplit(url)
    embedded = parts.scheme == "chdb" and not parts.netloc and len(parts.path) > 1
    if embedded or (parts.scheme in {"http", "https"} and parts.hostname):
        return parts.scheme, Path(parts.path)
    raise StoreError(f"store.url {mask_url(url)!r}: give chdb:///absolute/path or http(s)://user:password@host:8123/database")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot create the store's folder {path}: {error.strerror} (store.url)") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StoreError(f"cannot write to the store's folder {path} (store.url)")


def _empty_folder(path: Path) -> Path:
    """Return *path*, free of what an insert that was killed has left there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    return path


@contextmanager
def _temporary_files_in(folder: Path | None) -> Iterator[None]:
    """Have temporary files made in *folder*: the driver hands an insert to chDB as a file, a kill leaves it behind.

    The default folder belongs to the process, so another thread may for a moment get a file here as well; it works there too.
    """
    if folder is None:
        yield
        return
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _explain(url: str, path: Path, error: Exception) -> str:
    text = str(error)
    if not url.startswith("chdb://"):
        return f"cannot open the store {mask_url(url)}: {_cause(error)}"
    if "already initialized with path" in text:
        return f"cannot open the store {path}: this process has another embedded store open"
    if any(code in text for code in ("Code: 76", "CANNOT_OPEN_FILE", "Cannot lock file", "EmbeddedServer")):
        return (
            f"the store {path} is in use by another process; an embedded store belongs to one sidecar: stop the other, "
            "or give this one a path of its own (store.url)"
        )
    return f"cannot open the store {path}: {_cause(error)}"


def _cause(error: Exception) -> str:
    """Return one line that says what is wrong: the system's own words where a connection failed."""
    if found := re.search(r"\[Errno -?\d+\] ([^')]+)", str(error)):
        return found[1]
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
