"""What a store holds: its version, and of each table rows, bytes, parts, how far back it goes and how long rows are kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.schema import applied, newest, version_of

if TYPE_CHECKING:
    from headwatch_exporters.clickhouse.connection import Connection
    from headwatch_exporters.clickhouse.schema import Applied

_DAYS = re.compile(r"toIntervalDay\((\d+)\)")
TIME_COLUMNS = ("TimeUnix", "time", "updated", "applied_at")
"""A table's column of time is the first of these that it has."""
OURS = "(startsWith(name, 'otel_metrics_') OR startsWith(name, 'headwatch_'))"


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table.  Times are seconds since 1970; None where it is empty."""

    name: str
    rows: int
    bytes_on_disk: int
    parts: int
    oldest: float | None
    newest: float | None
    kept_days: int | None
    """None: for ever."""


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The whole store."""

    url: str
    version: int
    known_version: int
    """What this program writes."""
    migrations: list[Applied]
    tables: list[TableStatus]
    bytes_on_disk: int
    set_aside: int = 0
    """Batches in front of the store that it refused, and what nobody could read."""


def read_status(connection: Connection) -> StoreStatus:
    """Return what the store holds.

    Raises:
        StoreError: It cannot be read.
    """
    rows = connection.query(
        f"""
        SELECT name, engine_full, total_rows, total_bytes FROM system.tables
        WHERE database = currentDatabase() AND {OURS} AND engine LIKE '%MergeTree' ORDER BY name
        """  # noqa: S608 - a constant
    )
    parts = connection.query(
        """
        SELECT table, count() AS parts, sum(bytes_on_disk) AS bytes FROM system.parts
        WHERE database = currentDatabase() AND active GROUP BY table
        """
    )
    active = {row["table"]: row for row in parts}
    tables = []
    for row in rows:
        days = _DAYS.search(row["engine_full"])
        part = active.get(row["name"], {"parts": 0, "bytes": 0})
        oldest, latest = _range(connection, row["name"]) if row["total_rows"] else (None, None)
        tables.append(TableStatus(row["name"], int(row["total_rows"] or 0), int(part["bytes"]), int(part["parts"]), oldest,
                                  latest, int(days[1]) if days else None))  # fmt: skip
    size = sum(table.bytes_on_disk for table in tables)
    return StoreStatus(connection.url, version_of(connection), newest(), applied(connection), tables, size)


def _range(connection: Connection, table: str) -> tuple[float | None, float | None]:
    rows = connection.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}", {"table": table}
    )
    names = {row["name"] for row in rows}
    column = next((name for name in TIME_COLUMNS if name in names), None)
    if column is None:
        return None, None
    (row,) = connection.query(
        f"SELECT toFloat64(min({column})) AS oldest, toFloat64(max({column})) AS latest FROM {table}"  # noqa: S608 - our names
    )
    return row["oldest"], row["latest"]
