"""A connection to the store: chDB embedded in this process, or a ClickHouse server by URL.  One code path.

chDB belongs to one process at a time; the second is told so in one line.  A client is guarded by a lock: chDB answers
one query at a time anyway, and a shared HTTP client must not mix sessions.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwatch.config import StoreConfig, mask_url, store_url
from headwatch.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SETTINGS = {
    "async_insert": 0,  # chDB's default of 1 makes each small insert wait
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}
_LOCKED_CODES = ("Code: 76", "CANNOT_OPEN_FILE", "Code: 36", "Cannot lock file", "already")


class Connection:
    """Queries and inserts, safe from threads."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._lock = threading.Lock()
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

    def insert(self, table: str, columns: dict[str, Sequence[Any]], token: str) -> int:
        """Insert *columns* of equal length into *table*, and return the number of rows.

        *token* names this batch: a second insert with the same one is taken as the same and changes nothing.

        Raises:
            StoreError: The store refuses, or cannot be reached.
        """
        rows = len(next(iter(columns.values())))
        if rows == 0:
            return 0
        with self._guarded(f"insert into {table}"):
            self._client.insert(
                table, list(columns.values()), column_names=list(columns), column_oriented=True,
                settings={"insert_deduplication_token": token},
            )  # fmt: skip
        return rows

    def close(self) -> None:
        """Close the client."""
        with self._lock:
            self._client.close()

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except Exception as error:
                raise StoreError(f"{what} on {self.url} failed: {_first_line(error)}") from error


def connect(config: StoreConfig) -> Connection:
    """Return a connection to the store of *config*; the database that its URL names must exist.

    Raises:
        StoreError: The path is in use by another process, cannot be written, or the server cannot be reached.
    """
    url = store_url(config)
    try:
        import clickhouse_connect  # noqa: PLC0415 - heavy, and only where a store is wanted
        from clickhouse_connect.datatypes.format import set_write_format  # noqa: PLC0415
    except ImportError as error:
        raise StoreError(f"the store needs {error.name}; run: pip install 'headwatch[sidecar]'") from error
    set_write_format("DateTime64", "int")  # times are nanoseconds since 1970
    try:
        if url.startswith("chdb://"):
            _make_folder(Path(url.removeprefix("chdb://")))
            client = clickhouse_connect.get_client(dsn=url, settings=SETTINGS)
        else:
            client = clickhouse_connect.get_client(dsn=url, settings=SETTINGS, connect_timeout=5, send_receive_timeout=60)
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(_explain(url, error)) from error
    return Connection(client, mask_url(url))


def create_tables(connection: Connection, config: StoreConfig) -> None:
    """Create what is missing of the tables in ``sql/``.

    Raises:
        StoreError: The store refuses.
    """
    days = {"{head_ttl_days}": str(config.head_ttl_days), "{evidence_ttl_days}": str(config.evidence_ttl_days)}
    for file in sorted(files(__package__).joinpath("sql").iterdir(), key=lambda item: item.name):
        text = file.read_text()
        for name, value in days.items():
            text = text.replace(name, value)
        connection.command(text.strip().rstrip(";"))


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot create the store's folder {path}: {error.strerror} (store.url)") from error


def _explain(url: str, error: Exception) -> str:
    text = str(error)
    if url.startswith("chdb://") and any(code in text for code in _LOCKED_CODES):
        return (f"the store {url} is in use by another process; an embedded store belongs to one sidecar: stop the other, "
                "or give this one a path of its own (store.url)")
    return f"cannot open the store {mask_url(url)}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
