"""A store brought up to the version of this program: forward only, step by step, resumed where it was cut short.

Each step is recorded once it is done, and each may be run again until then: what creates says ``IF NOT EXISTS``, what fills a
table empties it first.  A version counts once all its steps are recorded.  A store that an earlier headwatch made has no
record; version 1 is that schema, and creates only what is missing.

A store of a newer version than this program knows is not touched: writing into columns that it does not understand would lose
data quietly.

A disk that is full, slow or away is no end: what was recorded stays, and the migration goes on when it is tried again.

By URL several sidecars may share a store.  Start one first when the version changes: two that migrate at one moment would
both fill.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.errors import StoreError
from headwatch_exporters.clickhouse.schema_files import LEDGER, OURS, ages, ledger, migrations
from headwatch_exporters.clickhouse.writing.mending import OLD_PARTS_SECONDS

if TYPE_CHECKING:
    from headwatch.config import StoreConfig
    from headwatch_exporters.clickhouse.connection import Connection
    from headwatch_exporters.clickhouse.schema_files import Migration, Step

Progress = Callable[[str], None]

_DAYS = re.compile(r"toIntervalDay\((\d+)\)")
_COLUMN = re.compile(r"^    (`[^`]+`|\w+) (?!.*\bNested\b)([^\n]+?),?$", re.MULTILINE)
"""A column in our own files: a line of its own, indented by four spaces."""
_SHARED = {
    "20_fill": "others may go on writing; windows that had ended more than ten minutes before this migration began, and arrive "
               "while it fills, are not in the rungs: let spools drain first (docs/store.md)",
}
"""What is to be said of a step where others write into the store."""
_FIRST = 1
"""The version whose tables may be there already, with fewer columns."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A version that a store has seen."""

    version: int
    name: str
    checksum: str
    applied_at_ns: int
    steps: int
    whole: bool


def newest() -> int:
    """Return the version that this program writes."""
    return migrations()[-1].version


def applied(connection: Connection) -> list[Applied]:
    """Return the versions that the store has seen, the first one first; none of a new store, or of one of before version 2.

    Raises:
        StoreError: The store cannot be read.
    """
    if not _exists(connection, LEDGER):
        return []
    rows = connection.query(
        f"""
        SELECT version, any(name) AS name, anyIf(checksum, step = '') AS checksum, countIf(step != '') AS steps,
               toUnixTimestamp64Nano(max(applied_at)) AS applied_at_ns, countIf(step = '') > 0 AS whole
        FROM {LEDGER} GROUP BY version ORDER BY version
        """  # noqa: S608 - a constant
    )
    return [Applied(**{**row, "whole": bool(row["whole"])}) for row in rows]


def version_of(connection: Connection) -> int:
    """Return the version of the store; 0 where it holds nothing of ours.

    Raises:
        StoreError: The store cannot be read.
    """
    whole = [seen.version for seen in applied(connection) if seen.whole]
    if whole:
        return max(whole)
    return _FIRST if _exists(connection, "otel_metrics_gauge") else 0


def require_known(connection: Connection) -> None:
    """See that this program knows the version of the store.

    Raises:
        StoreError: It is newer, or cannot be read.
    """
    version = max((seen.version for seen in applied(connection)), default=0)
    if version > newest():
        raise StoreError(
            f"the store {connection.url} has schema version {version}, and this headwatch knows {newest()}: upgrade headwatch; "
            "nothing was written"
        )


def create_tables(
    connection: Connection, config: StoreConfig, progress: Progress = lambda _: None, *, upto: int | None = None
) -> list[int]:
    """Bring the store to version *upto* (None: the newest), keep rows as long as *config* says, and return what was applied.

    Raises:
        StoreUnavailable: It has no space, memory or time for this at the moment; called again, it goes on where it was.
        StoreError: The store refuses, or is of a newer version.
    """
    require_known(connection)
    if not _exists(connection, LEDGER):
        connection.require_space()
    for statement in ledger().statements(config):
        connection.command(statement)
    whole = {seen.version for seen in applied(connection) if seen.whole}
    done = [one for one in migrations() if one.version not in whole and (upto is None or one.version <= upto)]
    if done and _exists(connection, "otel_metrics_gauge_local"):
        raise StoreError(
            f"the store {connection.url} is a cluster of schema version {max(whole, default=0)}: bring it to {newest()} "
            "with `headwatch store ddl --cluster NAME | clickhouse-client --multiquery`; nothing was written"
        )
    for migration in done:
        _apply(connection, config, migration, progress)
    _keep(connection, config)
    return [migration.version for migration in done]


def _apply(connection: Connection, config: StoreConfig, migration: Migration, progress: Progress) -> None:
    rows = connection.query(
        f"SELECT step FROM {LEDGER} WHERE version = {{version:UInt32}}", {"version": migration.version}  # noqa: S608
    )
    seen = {row["step"] for row in rows}
    for step in migration.steps:
        if step.name in seen:
            continue
        connection.require_space()
        progress(f"version {migration.version}: {step.name}")
        if step.name in _SHARED and not connection.url.startswith("chdb://"):
            progress(_SHARED[step.name])
        for statement in step.statements(config):
            connection.command(statement)
            if migration.version == _FIRST:
                _add_columns(connection, step.table, statement)
        _record(connection, migration, step)
    _record(connection, migration, None)


def _record(connection: Connection, migration: Migration, step: Step | None) -> None:
    name = "" if step is None else step.name
    columns: dict[str, list[object]] = {
        "version": [migration.version],
        "name": [migration.name],
        "step": [name],
        "checksum": [migration.checksum if step is None else ""],
        "applied_at": [time.time_ns() // 1_000_000],
    }
    connection.insert(LEDGER, columns, f"{migration.version}:{name}")


def _keep(connection: Connection, config: StoreConfig) -> None:
    """Have each table keep its rows as long as *config* says, and parts that were merged until somebody has looked."""
    rows = connection.query(
        "SELECT name, engine_full FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    )
    engines = {row["name"]: row["engine_full"] for row in rows}
    for table, age in ages(config):
        if table in engines and _DAYS.findall(engines[table]) != _DAYS.findall(age):
            connection.require_space()
            connection.command(f"ALTER TABLE {table} MODIFY TTL {age} SETTINGS alter_sync = 0, mutations_sync = 0")
    if connection.folder is None:
        return  # a server keeps what was merged for eight minutes
    lasting = f"old_parts_lifetime = {OLD_PARTS_SECONDS}"
    for table, engine in engines.items():
        if table.startswith(OURS) and lasting not in engine:
            connection.require_space()
            connection.command(f"ALTER TABLE {table} MODIFY SETTING {lasting}")


def _add_columns(connection: Connection, table: str, statement: str) -> None:
    """Add the columns of *statement* that *table* lacks, each in its place; rows that are there get its default."""
    rows = connection.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}", {"table": table}
    )
    known = {row["name"] for row in rows}
    place = "FIRST"
    for name, kind in _COLUMN.findall(statement):
        if name == "INDEX":
            continue
        if name.strip("`") not in known:
            connection.command(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {kind} {place}")
        place = f"AFTER {name}"


def _exists(connection: Connection, table: str) -> bool:
    return bool(connection.query(
        "SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = {table:String}", {"table": table}
    ))  # fmt: skip
